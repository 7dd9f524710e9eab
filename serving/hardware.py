"""What this machine has, read without torch: cores, memory and GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from lensmith.errors import InputError, Problem

_MIB = 1 << 20
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits")
_QUERY_LIMIT_S = 30
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name as the driver gives it, its memory in bytes, its compute capability; (0, 0) where the
    driver states none."""

    name: str
    memory: int
    capability: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Hardware:
    """cores: those this process may run on. memory: in bytes, the container's where it has a limit.
    gpus: those this process may use, in the driver's order."""

    cores: int
    memory: int
    gpus: tuple[Gpu, ...] = ()


def read_hardware() -> Hardware:
    """The facts of this machine. Raises InputError where a driver is installed that does not answer."""
    return Hardware(
        cores=len(os.sched_getaffinity(0)),
        memory=_memory(psutil.virtual_memory().total, _CGROUP_MEMORY),
        gpus=_visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")),
    )


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """GPUs from the lines "name, memory in MiB, compute capability" that `nvidia-smi` prints.

    Memory that the driver does not state ("[N/A]", on GPUs that share the machine's) counts as 0.
    """
    gpus = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, memory, capability = (part.strip() for part in line.rsplit(",", 2))
        major, _, minor = capability.partition(".")
        known = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
        gpus.append(Gpu(name, int(memory) * _MIB if memory.isdigit() else 0, known))
    return tuple(gpus)


def _gpus() -> tuple[Gpu, ...]:
    if shutil.which(_QUERY[0]) is None:
        return ()
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            "the GPU driver does not answer",
            [Problem(f"nothing within {_QUERY_LIMIT_S} s", _QUERY[0], "look at `nvidia-smi` and dmesg")],
        ) from error
    if done.returncode != 0:
        # The tool is there but no GPU or driver is: an image made for GPUs on a machine without one.
        return ()
    return parse_gpus(done.stdout)


def _visible(gpus: tuple[Gpu, ...], chosen: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES leaves; by number only, names (GPU-…, MIG-…) are counted."""
    if chosen is None:
        return gpus
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    numbers = [int(name) for name in names if name.isdigit()]
    if len(numbers) == len(names):
        return tuple(gpus[number] for number in numbers if number < len(gpus))
    return gpus[: sum(name != "-1" for name in names)]


def _memory(total: int, limit: Path) -> int:
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total
