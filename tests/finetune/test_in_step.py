"""Rounds of processes that answer together, and when they end: here for one process, which is all of them."""

from __future__ import annotations

import torch
from torch import nn

from finetune.in_step import InStep
from lensmith.row_file import Row
from lensmith.sample import Sample

ENDS = (7, 9)


def in_step(*, breaks_at: int = 99) -> InStep:
    asked = iter(range(100))
    row = Row(Sample(id="filler", group="a", messages=()), ())
    return InStep(nn.Linear(1, 1), row, torch.float32, lambda: next(asked) >= breaks_at)


def test_all_batches_come() -> None:
    joined = in_step()
    assert list(joined.rounds(iter("abc"))) == ["a", "b", "c"]
    assert not joined.broken
    assert list(in_step().rounds(iter(()))) == []


def test_it_breaks_off_between_batches() -> None:
    joined = in_step(breaks_at=2)
    assert list(joined.rounds(iter("abc"))) == ["a", "b"]
    assert joined.broken


def over(tokens: list[list[int]], *, fills: bool = False) -> list[bool]:
    """Whether the rows' answers, a column a token, are over behind each token."""
    ending = in_step().ending(ENDS, fills=fills)
    rows = torch.tensor(tokens)
    told = [ending(rows[:, : at + 1], None) for at in range(rows.shape[1])]  # pyright: ignore[reportArgumentType]
    assert all(len(set(each.tolist())) == 1 for each in told), "all rows at once"
    return [bool(each[0]) for each in told]


def test_answers_last_as_long_as_the_longest() -> None:
    assert over([[1, 7, 2, 3], [1, 2, 3, 9]]) == [False, False, False, True]
    assert over([[1, 9, 2], [9, 3, 4]]) == [False, True, True], "what comes behind an end opens nothing again"


def test_nobody_waits_for_a_filler() -> None:
    assert over([[1, 2]], fills=True) == [True, True]
