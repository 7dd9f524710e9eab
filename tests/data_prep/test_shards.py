"""Pictures of a split cut into files: what changes moves few cuts, and there are never too many files."""

from __future__ import annotations

import hashlib

import pytest

from data_prep import shards
from data_prep.shards import LEAST_PIXELS, MOST_FILES, plan_shards, shard_key

SIZE = 1_000_000


def pictures(count: int, size: int = SIZE) -> list[tuple[bytes, int]]:
    return [(hashlib.sha256(b"%d" % number).digest(), size) for number in range(count)]


def planned(given: list[tuple[bytes, int]]) -> list[shards.Shard]:
    return plan_shards(given, sum(size for _, size in given))


def unknown(given: list[tuple[bytes, int]], before: list[tuple[bytes, int]]) -> float:
    """The share of pictures in files that the earlier split has not."""
    known = {each.key for each in planned(before)}
    return sum(each.pictures for each in planned(given) if each.key not in known) / len(given)


def test_every_picture_is_in_one_file_in_order() -> None:
    given = pictures(500)
    at = 0
    for shard in planned(given):
        part = given[at : at + shard.pictures]
        assert shard.key == shard_key(identity for identity, _ in part)
        at += shard.pictures
    assert at == 500


def test_what_is_replaced_added_or_left_out_leaves_most_files() -> None:
    before = pictures(1000)
    replaced = [(bytes(32 - len(str(at))) + str(at).encode(), SIZE) if at % 100 == 50 else each
                for at, each in enumerate(before)]  # fmt: skip
    assert 0.01 <= unknown(replaced, before) < 0.2
    assert 0 < unknown([*before, *pictures(1010)[1000:]], before) < 0.05
    assert 0 < unknown(before[:500] + before[501:], before) < 0.05


def test_a_few_small_pictures_share_one_file() -> None:
    assert [each.pictures for each in planned(pictures(64, LEAST_PIXELS // 300))] == [64]
    assert planned([]) == []


@pytest.mark.parametrize("count", [1000, 10_000])
def test_there_are_never_too_many_files(count: int) -> None:
    found = planned(pictures(count))
    assert MOST_FILES / 4 < len(found) <= MOST_FILES


def test_no_file_is_much_larger_than_the_others() -> None:
    # None of these would end a file by itself.
    same = [(b"\xff" * 32, SIZE)] * 100
    assert {each.pictures for each in planned(same)[:-1]} == {4 * LEAST_PIXELS // SIZE}
