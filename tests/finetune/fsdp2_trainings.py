"""Run by accelerate launch on two processes: one training after the other, divided by FSDP2 on CPUs.

PYTHONPATH=.:scripts accelerate launch --config_file CONFIG tests/finetune/fsdp2_trainings.py OUT CASE...

A CASE is NAME:RECIPE:HOME, what scripts/train.py is given; NAME may be of `BROKEN`. Process N writes the
error that ended it, or null, to OUT/NAME.N.json, and what its evaluations were answered to
OUT/NAME.N.said.json. accelerate is told that processes over gloo are processes
with a GPU: that is all its look for a device decides. What divides, gathers and saves is its own and torch's.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import accelerate.accelerator
import train
import transformers.training_args
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule

import finetune.train
from finetune.checkpoint import folder_of
from finetune.ending import leave
from finetune.resume import Sealer
from lensmith.errors import LensmithError
from lensmith.home import Home
from lensmith.large_imports import QuickExit
from tests.finetune.examined import noting, told_while_asking


class Killed(Exception):
    """Ends a training as no error of ours does."""


class Breaking(Sealer):
    """Ends the training behind its second checkpoint, and says what that holds."""

    def on_save(self, *given: Any, **named: Any) -> None:
        """As ever, then no further."""
        super().on_save(*given, **named)
        step = given[1].global_step
        if step == 2:
            raise Killed(*sorted(path.name for path in folder_of(self.work, step).iterdir()))


def _summed(module: FSDPModule, on: bool, **_: Any) -> None:
    """What accelerate calls around a pass whose gradients it would keep whole until the step's last one."""
    if not on:
        raise AssertionError(f"{type(module).__name__} would keep whole gradients")


def _left_whole(_: object, model: nn.Module) -> nn.Module:
    return model


BROKEN: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    **dict.fromkeys(("killed", "killed full"), lambda: patch.object(finetune.train, "Sealer", Breaking)),
    "told": lambda: told_while_asking(os.environ["RANK"]),
    # What accelerate would do by a variable of the environment, or by an error of its own.
    "whole": lambda: patch.object(accelerate.accelerator, "fsdp2_prepare_model", _left_whole),
    "left out": lambda: patch.dict(os.environ, ACCELERATE_USE_FSDP="false"),
    "in one piece": lambda: patch.dict(os.environ, FSDP_AUTO_WRAP_POLICY="NO_WRAP"),
}


@contextlib.contextmanager
def over_gloo() -> Iterator[None]:
    """accelerate, and transformers' check of bfloat16, as they are with GPUs."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    found = ("gloo", DistributedType.MULTI_GPU)
    with (
        patch.object(PartialState, "_prepare_backend", lambda *_: found),
        patch.object(transformers.training_args, "is_torch_bf16_gpu_available", lambda: True),
    ):
        yield


def main(out: Path, cases: list[str]) -> None:
    """Train each case."""
    rank = os.environ["RANK"]
    for case in cases:
        name, recipe, home = case.split(":")
        error, began = None, time.monotonic()
        AcceleratorState._reset_state(reset_partial_state=False)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        summed = patch.object(FSDPModule, "set_requires_gradient_sync", _summed)
        with over_gloo(), summed, noting() as said, BROKEN.get(name, contextlib.nullcontext)():
            try:
                train.train(Path(recipe), [], Home(Path(home)))
            except (LensmithError, Killed) as caught:
                error = str(caught)
        print(name, rank, "took", time.monotonic() - began, flush=True)
        (out / f"{name}.{rank}.json").write_text(json.dumps(error))
        (out / f"{name}.{rank}.said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    leave(QuickExit(), 0)
