"""GPUs and their memory, to plan for. No torch at import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lensmith.errors import InputError, Problem
from lensmith.units import GIB

_MIB = 1 << 20
# MiB, as `nvidia-smi --query-gpu=memory.total` prints it with ECC as delivered: of h200-141 and h100-80 as
# seen, of the others as commonly listed, at most what NVIDIA's data sheets say. What a machine
# has, `lensmith doctor` reads from its driver; a number of GiB is taken as it is.
MEMORY_MIB = {
    "t4-16": 15_360,
    "l4-24": 23_034,
    "a10-24": 23_028,
    "rtx4090-24": 24_564,
    "rtx5090-32": 32_607,
    "v100-32": 32_768,
    "a100-40": 40_960,
    "a40-48": 46_068,
    "l40s-48": 46_068,
    "rtxa6000-48": 49_140,
    "h100-80": 81_559,
    "a100-80": 81_920,
    "h200-141": 143_771,
    "b200-180": 183_359,
}


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
        if name.lower() in MEMORY_MIB:
            gpus.append(Gpu(name.lower(), MEMORY_MIB[name.lower()] * _MIB))
        elif name.replace(".", "", 1).isdecimal() and float(name) > 0:
            gpus.append(Gpu(f"{name} GiB", int(float(name) * GIB)))
        else:
            problems.append(Problem("is no GPU known here", repr(name)))
    if problems:
        known = f"give its memory in GiB, or one of {', '.join(MEMORY_MIB)}"
        raise InputError("--gpu cannot be read", [*problems, Problem(known)])
    return gpus
