"""Caps and weights: what is taken of a source, and how often training sees it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

from data_prep.mixture import capped, row_hash, times_seen
from lensmith.data_settings import SourceSpec

ROWS = [f"row-{number}" for number in range(2000)]


def taken(rows: list[str], cap: int | None, seed: int = 17, source: str = "a") -> list[str]:
    mask = capped(source, iter(rows), cap, seed)
    return [row for row, chosen in zip(rows, mask, strict=True) if chosen]


def test_a_cap_takes_so_many_whatever_their_order() -> None:
    some = taken(ROWS, 300)
    assert len(some) == 300
    assert set(taken(ROWS[::-1], 300)) == set(some)
    assert taken(ROWS, 2000) == taken(ROWS, 5000) == taken(ROWS, None) == ROWS
    assert taken([], 5) == []


def test_seed_and_source_choose_others() -> None:
    some = set(taken(ROWS, 300))
    assert set(taken(ROWS, 300, seed=18)) != some
    assert set(taken(ROWS, 300, source="b")) != some


def test_new_rows_push_out_only_those_whose_places_they_take() -> None:
    before = set(taken(ROWS, 300))
    after = set(taken([*ROWS, *(f"new-{number}" for number in range(200))], 300))
    come = {row for row in after if row.startswith("new-")}
    assert come
    assert len(before - after) == len(come)
    assert after - come <= before
    assert set(taken(ROWS, 200)) < before


def test_rows_of_one_id_are_taken_in_order() -> None:
    rows = [f"row-{number % 7}" for number in range(7000)]
    mask = capped("a", rows, 2500, 17).tolist()
    for name in set(rows):
        chosen = [taken for row, taken in zip(rows, mask, strict=True) if row == name]
        assert chosen == sorted(chosen, reverse=True)


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 1.5, 2.0, 3.75])
def test_a_weight_is_how_often_a_row_is_seen_on_average(weight: float) -> None:
    counts = [times_seen("a", row, "train", weight, 17) for row in ROWS]
    assert set(counts) <= {int(weight), int(weight) + 1}
    assert sum(counts) / len(counts) == pytest.approx(weight, abs=0.04)


def test_raising_a_weight_only_adds() -> None:
    counts = [
        [times_seen("a", row, "train", weight, 17) for row in ROWS] for weight in (0.2, 0.9, 1.0, 1.3, 7)
    ]
    for fewer, more in pairwise(counts):
        assert all(low <= high for low, high in zip(fewer, more, strict=True))


@pytest.mark.parametrize("split", ["validation", "held_out"])
@pytest.mark.parametrize("weight", [0.001, 5.0])
def test_only_training_rows_are_weighted(split: str, weight: float) -> None:
    assert {times_seen("a", row, split, weight, 17) for row in ROWS} == {1}  # type: ignore[arg-type]


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert row_hash("cap", 17, "forms", "row-1") == 5170301001129911426
    assert row_hash("cap", 17, "a", "b") != row_hash("cap", 17, "a\0b", "")


@pytest.mark.parametrize(
    "share",
    [{"cap": -1}, {"weight": 0.0}, {"weight": -1.0}, {"weight": 1e9}, {"weight": float("nan")}, {"x": 1}],
)
def test_shares_that_make_no_sense(share: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SourceSpec.model_validate({"path": "a", **share})
    assert SourceSpec.model_validate({"path": "a", "weight": 1000.0}).cap == 0
