"""What training rows cost in tokens, and those that cannot be trained on; none is ever cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lensmith.errors import InputError, Problem

_SHOWN = 10


@dataclass(frozen=True)
class RowTokens:
    """A row's cost in language-model tokens: of the prompt's text, its images, and the answer."""

    row: str
    text: int
    image: int
    answer: int

    @property
    def total(self) -> int:
        return self.text + self.image + self.answer


def check_lengths(
    rows: Iterable[RowTokens], max_length: int, alone: Sequence[str] = ()
) -> Iterator[RowTokens]:
    """Pass rows through; raises InputError at the end, naming every row above `max_length` tokens.

    alone: the rows, known when all are passed, that have no rejected answer and need one; named with them.
    """
    longer: list[tuple[str, int]] = []
    for each in rows:
        if each.total > max_length:
            longer.append((each.row, each.total))
        yield each
    errors = [
        *([too_long(longer, max_length)] if longer else []),
        *([_without_other(alone)] if alone else []),
    ]
    if errors:
        raise InputError(
            "; ".join(each.summary for each in errors), [each for error in errors for each in error.problems]
        )


def _without_other(rows: Sequence[str]) -> InputError:
    shown = [Problem("has no rejected answer", f"row {row}", "add it as rejected") for row in rows[:_SHOWN]]
    number = "1 row has" if len(rows) == 1 else f"{len(rows)} rows have"
    return InputError(f"{number} no rejected answer, which train.objective dpo needs", shown)


def too_long(rows: list[tuple[str, int]], max_length: int) -> InputError:
    """The error for rows (id, tokens) above the limit."""
    shown = [
        Problem(f"has {length:,} tokens", f"row {row}", f"raise train.max_length to {length:,}")
        for row, length in sorted(rows, key=lambda each: -each[1])[:_SHOWN]
    ]
    number = "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
    return InputError(f"{number} longer than train.max_length {max_length:,}", shown)
