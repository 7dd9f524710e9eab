"""FSDP2: how accelerate is told to divide a model, and whether it really did.

accelerate leaves FSDP out without a word where it finds no GPU, and divides in another way where a variable
of the environment says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune.launcher import Launcher
from finetune.memory import Gathered
from lensmith.errors import IntegrityError, Problem

_SHOWN = 5
T = TypeVar("T")


def blocks_of(model: nn.Module) -> dict[str, GradientCheckpointingLayer]:
    """What is gathered by itself, by name: the blocks of the towers."""
    return {
        name: each for name, each in model.named_modules() if isinstance(each, GradientCheckpointingLayer)
    }


def gathered_of(model: nn.Module) -> Gathered:
    """What of `model`, as it is trained, is whole at a time."""
    sizes = [_sizes(each) for each in blocks_of(model).values()]
    parameters, trained = _sizes(model)
    return Gathered(
        outside=parameters - sum(size for size, _ in sizes),
        block=max(size for size, _ in sizes),
        outside_trained=trained - sum(size for _, size in sizes),
        block_trained=max(size for _, size in sizes),
    )


def _sizes(module: nn.Module) -> tuple[int, int]:
    counts = [(each.numel(), each.requires_grad) for each in module.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)


def divide_by_blocks(accelerator: Accelerator, model: nn.Module, dtype: torch.dtype) -> None:
    """Let `accelerator` gather a block of a tower at a time, in `dtype`, and sum gradients in float32.

    accelerate by itself would give the loss, too, in the weights' dtype: in bfloat16 it has two digits.
    Raises IntegrityError where `accelerator` would not divide by FSDP2.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if plugin is None:
        raise IntegrityError(
            "the weights would not be divided",
            [Problem(f"accelerate chose {accelerator.distributed_type.value}, not FSDP2", "train.launcher")],
        )
    plugin.transformer_cls_names_to_wrap = sorted({type(each).__name__ for each in blocks_of(model).values()})
    if dtype != torch.float32:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)


def check_divided(model: nn.Module, processes: int, path: Path) -> float:
    """The share of the weights that this process holds.

    Raises IntegrityError where FSDP2 did not divide all of them over all of `processes`, as the launcher
    config at `path` says, or left a block to be gathered with others.
    """
    whole = [name for name, each in model.named_parameters() if not _shared(each, processes)]
    together = [name for name, each in blocks_of(model).items() if not isinstance(each, FSDPModule)]
    problems = [Problem(f"is not divided over {processes} processes", name) for name in whole[:_SHOWN]]
    problems += [Problem("is not gathered by itself", name) for name in together[:_SHOWN]]
    if not isinstance(model, FSDPModule):
        problems.append(Problem(f"{type(model).__name__} is no module of FSDP2", "model"))
    if problems:
        problems.append(
            Problem("accelerate leaves FSDP out where it finds no GPU", mend="run lensmith doctor")
        )
        raise IntegrityError(f"FSDP2 did not divide the model, which {path} says", problems)
    parts = [each for each in model.parameters() if isinstance(each, DTensor)]
    return sum(each.to_local().numel() for each in parts) / sum(each.numel() for each in parts)


def _shared(parameter: nn.Parameter, processes: int) -> bool:
    if not isinstance(parameter, DTensor):
        return False
    return parameter.placements == (Shard(0),) and parameter.device_mesh.size() == processes


def gathered(model: nn.Module, ask: Callable[[], T]) -> T:
    """What `ask` gives, which runs what is below the divided `model`; its weights are in parts again then.

    FSDP2 gathers what lies outside of blocks, and begins and ends a pass, when `model` itself is called; what
    generates calls the model of transformers below PEFT's. A model that FSDP2 has not divided is left alone.
    """
    if not isinstance(model, FSDPModule):
        return ask()
    # As a method of its own: FSDP2 copies the arguments of what it calls.
    model.ask = ask  # pyright: ignore[reportArgumentType]
    register_fsdp_forward_method(model, "ask")
    try:
        return model.ask()  # pyright: ignore[reportCallIssue]
    finally:
        del model.ask
        # For training it would keep what the pass ended with.
        for each in model.modules():
            if isinstance(each, FSDPModule):
                each.reshard()


class Divided(TrainerCallback):
    """Checks, before the first step, that the model is divided as the launcher config says."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise IntegrityError where it is not."""
        check_divided(kwargs["model"], self.launcher.processes, self.launcher.path)
