"""Proofs ask the same rows of every engine, spread over the groups."""

from __future__ import annotations

import random
from collections import Counter

from lensmith.exam import proof_rows
from lensmith.row_file import Row
from lensmith.sample import Message, Sample, Text


def make_rows(groups: int, each: int) -> list[Row]:
    messages = (Message("user", (Text("q"),)), Message("assistant", (Text("a"),)))
    return [Row(Sample(f"{g}-{i}", f"g{g}", messages), ()) for g in range(groups) for i in range(each)]


def ids(rows: list[Row]) -> list[str]:
    return [row.sample.id for row in rows]


def test_every_group_has_its_turn() -> None:
    chosen = proof_rows(make_rows(7, 9), 24)
    assert sorted(Counter(row.sample.group for row in chosen).values()) == [3, 3, 3, 3, 4, 4, 4]


def test_all_rows_where_there_are_fewer() -> None:
    assert sorted(ids(proof_rows(make_rows(2, 3), 64))) == sorted(ids(make_rows(2, 3)))


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [*make_rows(5, 30), *make_rows(40, 1)[5:]]
    expected = ids(proof_rows(rows, 10))
    for seed in range(20):
        random.Random(seed).shuffle(rows)
        assert ids(proof_rows(iter(rows), 10)) == expected


def test_fewer_rows_are_the_first_of_more() -> None:
    rows = make_rows(6, 6)
    assert ids(proof_rows(rows, 30))[:8] == ids(proof_rows(rows, 8))
