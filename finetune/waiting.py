"""How long a training's processes wait for each other, and the error of one that waited in vain."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import _get_default_group

from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.train_settings import Train

# How gloo says it. NCCL ends the process instead: finetune/killed.py.
_IN_VAIN = "Timed out waiting"
KEY = "train.collective_timeout"
_DEVICES = {"gloo": "cpu", "nccl": "cuda"}


@contextlib.contextmanager
def others_come(train: Train) -> Iterator[None]:
    """Turn a collective that another process came too late for into an InputError."""
    try:
        yield
    except RuntimeError as error:
        if _IN_VAIN not in str(error):
            raise
        what = f"waited longer than {train.collective_timeout} s for another one"
        mend = (
            "the log says whether another one failed, or hung; raise it where a step, or a process's share of"
            " an evaluation, takes as long"
        )
        raise InputError("a training process waited in vain", [Problem(what, KEY, mend)]) from error


def check_patience(train: Train) -> None:
    """Raise IntegrityError where the processes, which have joined, wait another time than the recipe says."""
    if not distributed.is_initialized() or distributed.get_backend() not in _DEVICES:
        return
    device = torch.device(_DEVICES[distributed.get_backend()])
    # Nothing else tells; the libraries between hand it on, each in its own way.
    options: Any = _get_default_group()._get_backend(device).options
    found = options._timeout.total_seconds()
    if found != train.collective_timeout:
        problem = Problem(f"{found:g} s, the recipe says {train.collective_timeout}", KEY)
        raise IntegrityError("the processes do not wait for each other as they should", [problem])
