"""GPUs to plan for, as a command line names them. No torch at import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lensmith.errors import InputError, Problem
from lensmith.gpus import KINDS
from lensmith.units import GIB


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name here, and its memory in bytes."""

    name: str
    memory: int


def parse_gpus(texts: Sequence[str]) -> list[Gpu]:
    """GPUs by name or by their memory in GiB, each text one or several with commas between.

    Raises InputError with every one that is neither.
    """
    gpus: list[Gpu] = []
    problems: list[Problem] = []
    for name in (part.strip() for text in texts for part in text.split(",")):
        if name.lower() in KINDS:
            gpus.append(Gpu(name.lower(), KINDS[name.lower()].memory))
        elif name.replace(".", "", 1).isdecimal() and float(name) > 0:
            gpus.append(Gpu(f"{name} GiB", int(float(name) * GIB)))
        else:
            problems.append(Problem("is no GPU known here", repr(name)))
    if problems:
        known = f"give its memory in GiB, or one of {', '.join(KINDS)}"
        raise InputError("--gpu cannot be read", [*problems, Problem(known)])
    return gpus
