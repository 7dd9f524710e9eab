"""The files through which a training tells its launcher how far it is. No torch."""

from __future__ import annotations

from pathlib import Path

PROGRESS = "progress.txt"
EVALUATIONS = "evaluations.txt"


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


def note_evaluation(work: Path, line: str) -> None:
    """Note what an evaluation came to."""
    with (work / EVALUATIONS).open("a") as file:
        file.write(line + "\n")


def read_evaluations(work: Path) -> list[str]:
    """What the evaluations of the training whose work directory this is came to, a line each."""
    try:
        return (work / EVALUATIONS).read_text().splitlines()
    except FileNotFoundError:
        return []


def forget_evaluations(work: Path) -> None:
    """Those of an earlier start were told by it."""
    (work / EVALUATIONS).unlink(missing_ok=True)
