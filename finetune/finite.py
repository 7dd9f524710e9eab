"""Weights that are numbers: what a training that broke down saves is no checkpoint to go on from."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import safe_open

from lensmith.errors import InputError, IntegrityError, Problem


def check_finite(folder: Path) -> None:
    """Raise InputError, in every process, where a weight in the checkpoint is not a finite number; the first
    process reads them, and raises IntegrityError where there are none."""
    found = [_broken(folder) if PartialState().is_main_process else None]
    broadcast_object_list(found)
    if found[0] is not None:
        raise InputError(
            f"training broke down before {folder.name} was saved",
            [Problem("holds NaN or infinite values", found[0], "lower train.learning_rate")],
        )


def _broken(folder: Path) -> str | None:
    """The first saved weight that is not finite."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise IntegrityError(f"no weights were saved in {folder}")
    for path in paths:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (a safetensors file is not iterable)
                if not bool(file.get_tensor(name).isfinite().all()):
                    return name
    return None
