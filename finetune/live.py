"""The file through which a training tells its launcher how far it is. No torch."""

from __future__ import annotations

from pathlib import Path

PROGRESS = "progress.txt"


def write_progress(work: Path, step: int, steps: int) -> None:
    """Note that `step` of `steps` are done."""
    (work / PROGRESS).write_text(f"{step} {steps}\n")


def read_progress(work: Path) -> tuple[int, int] | None:
    """(steps done, steps in all) of the training whose work directory this is; None before its first step."""
    try:
        parts = (work / PROGRESS).read_text().split()
    except FileNotFoundError:
        return None
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 else None
