"""A training that breaks down: a loss or gradient that is no finite number, and the rows it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.collate import COLUMN
from finetune.encoded import IGNORED, Encoded
from lensmith.errors import InputError, Problem
from lensmith.files import write_atomically

# Of a batch: the ids of its rows. The model never gets it.
ROWS = "rows"
# Where all passes of the step stand, whole.
BREAKDOWN = "breakdown.json"
_WATCHED = {"loss": "loss", "grad_norm": "gradient norm"}
_PASSES, _ROWS_A_PASS = 8, 24

Collate = Callable[[Sequence[dict[str, Encoded]]], dict[str, Any]]


@dataclass(frozen=True)
class NamedRows:
    """A collator's batches with the ids of their rows; a row that only fills a pack teaches nothing."""

    collate: Collate

    def __call__(self, rows: Sequence[dict[str, Encoded]]) -> dict[str, Any]:
        """What `collate` gives, and ROWS: list of str."""
        encoded = [row[COLUMN] for row in rows]
        taught = [each.row for each in encoded if bool((each.labels != IGNORED).any())]
        return {**self.collate(rows), ROWS: taught}


@dataclass(frozen=True)
class Pass:
    """A forward pass of an optimizer step: its process, the ids of its rows, and its share of the loss."""

    process: int
    rows: tuple[str, ...]
    loss: float

    @property
    def broken(self) -> bool:
        """Whether its own loss is no finite number."""
        return not math.isfinite(self.loss)


def is_broken(logs: Mapping[str, float]) -> bool:
    """Whether a step's loss or gradient norm, by the trainer's names, is NaN or infinite."""
    return any(name in logs and not math.isfinite(logs[name]) for name in _WATCHED)


def write_breakdown(work: Path, step: int, logs: Mapping[str, float], passes: Sequence[Pass]) -> None:
    """Leave the step's passes, of all processes, as BREAKDOWN in `work`; NaN stands there as `NaN`."""
    told = {name: logs[name] for name in _WATCHED if name in logs}
    content = {"step": step, **told, "passes": [asdict(each) for each in passes]}
    write_atomically(work / BREAKDOWN, json.dumps(content, indent=2).encode() + b"\n")


def breakdown(
    work: Path,
    step: int,
    logs: Mapping[str, float],
    before: Mapping[str, float] | None,
    passes: Sequence[Pass],
) -> InputError:
    """The error for a step that `is_broken`: what it came to, the rows to look at, and what can be done.

    before: the log of the step before it, None where there was none. passes: of all processes. Where the loss
    of some passes is broken, only their rows are named.
    """
    told = ", ".join(f"the {title} is {logs[name]}" for name, title in _WATCHED.items() if name in logs)
    if before is None:
        mend = (
            "no weight has changed yet, so it is not the rate: look at these rows, and at the base's weights"
        )
    else:
        was = ", ".join(f"{title} {before[name]:.4g}" for name, title in _WATCHED.items() if name in before)
        told += f"; the step before had {was}"
        mend = "lower train.learning_rate or the rate of a tower, or look at these rows"
    problems = [Problem(told, f"step {step}", mend)]
    broken = [each for each in passes if each.broken]
    problems += [_of_pass(each) for each in (broken or passes)[:_PASSES]]
    if len(broken) == len(passes) > 1:
        problems.append(Problem("the loss of every pass is broken: no single row has done this"))
    problems.append(
        Problem(
            "see them: lensmith preview RECIPE --row ID", "rows", f"all of them are in {work / BREAKDOWN}"
        )
    )
    return InputError(f"training broke down at step {step}", problems)


def _of_pass(each: Pass) -> Problem:
    what = f"the loss of this pass is {each.loss}" if each.broken else "the loss of this pass is a number"
    more = len(each.rows) - _ROWS_A_PASS
    rows = ", ".join(each.rows[:_ROWS_A_PASS]) + (f" and {more} more" if more > 0 else "")
    return Problem(f"{what}; rows {rows}", f"process {each.process}")
