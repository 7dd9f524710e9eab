"""A fully trained model's weights under FSDP2: in a checkpoint once, as the run takes them."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from finetune.model import load_model


def load_whole(accelerator: Accelerator, model: nn.Module, checkpoint: Path) -> None:
    """Give the divided `model` the weights of `checkpoint`, which the first process alone reads.

    In float32 as they are trained: accelerate's own form of them, which transformers would write beside, has
    not a bit more.
    """
    weights = load_model(checkpoint, torch.float32).state_dict() if accelerator.is_main_process else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, weights, options=options)
