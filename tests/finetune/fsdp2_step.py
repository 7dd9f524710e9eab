"""Run by torchrun on two processes: a step of a model that FSDP2 divides, an image on one process alone.

PYTHONPATH=. python -m torch.distributed.run --nproc-per-node 2 tests/finetune/fsdp2_step.py OUT

With torch's `fully_shard` over gloo: accelerate leaves FSDP out on CPUs. Process 0 writes OUT/found.json.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from finetune.answer_loss import teach_answers_only
from finetune.blank_image import see_blank_image
from finetune.collate import COLUMN, Collator
from finetune.ending import leave
from lensmith import families
from lensmith.large_imports import QuickExit
from tests.finetune.tiny_models import qwen3_vl, row

FAMILY = families.get("qwen3_vl")
ROWS = row(1, 9, 5, ((4, 6),)), row(3, 12, 4)
BLANK = row(2, 4, 1, ((2, 2),)).images
BLOCKS = ("model.language_model.layers", "model.visual.blocks")
RATE = 0.05


def made() -> PreTrainedModel:
    """The model, the same in every process."""
    model = qwen3_vl()
    teach_answers_only(model)
    return model


def stepped(model: PreTrainedModel, batches: list[dict[str, Tensor]], share: int) -> None:
    """A step of SGD on the sum over `batches`, where gradients are the mean of `share` processes."""
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    for batch in batches:
        given = {name: values for name, values in batch.items() if name != "labels"}
        loss, _, _ = model(**given, answer_labels=batch["labels"])
        (loss * share).backward()
    optimizer.step()


def divided(model: PreTrainedModel) -> PreTrainedModel:
    """Each block's weights, and the rest of the model's, in parts over all processes."""
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for name in BLOCKS:
        blocks = model.get_submodule(name)
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)  # pyright: ignore[reportReturnType]


def main(out: Path) -> None:
    """Take the step alone and divided, and write by how much the weights differ."""
    batches = [Collator(0)([{COLUMN: each}]) for each in ROWS]
    alone = made()
    before = {name: each.clone() for name, each in alone.state_dict().items()}
    stepped(alone, batches, 1)

    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=30))
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = made()
    see_blank_image(model, FAMILY, BLANK)
    model = divided(model)
    parts = [each for each in model.parameters() if isinstance(each, DTensor)]
    stepped(model, [batches[rank]], processes)
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        wanted = alone.state_dict()
        assert whole.keys() == wanted.keys()
        found = {
            "divided": isinstance(model, FSDPModule) and len(parts) == len(list(model.parameters())),
            "share": sum(each.to_local().numel() for each in parts) / sum(each.numel() for each in parts),
            "moved": max(float((wanted[name] - before[name]).abs().max()) for name in wanted),
            "differs": max(float((whole[name] - wanted[name]).abs().max()) for name in wanted),
        }
        (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave(QuickExit(), 0)
