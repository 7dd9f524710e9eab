"""The benchmark of looking at files runs, both sides are right, and it ends with its line."""

from __future__ import annotations

import pytest

from benchmarks import pictures
from benchmarks.prep import faults
from tests.benchmarks.runs import KEYS, committed, run

LINE = [*KEYS, "caught", "planted"]


@pytest.mark.slow
def test_the_last_line_is_the_result() -> None:
    line, _ = run("prep", "--files", "20", "--rounds", "1")
    assert list(line) == LINE
    assert line["unit"] == "images/s"
    assert line["caught"] == line["planted"] == 2
    assert line["ratio"] > 1


def test_the_committed_result_states_what_it_saw() -> None:
    result = committed("prep")
    assert list(result)[: len(LINE)] == LINE
    assert result["files"] == 1000
    assert result["caught"] == result["planted"] == 20
    assert result["mix"] == {f"{kind} {content}": share for kind, content, share in pictures.MIX}
    assert result["ours_peak_mb"] < result["baseline_peak_mb"]


def test_what_a_side_gets_wrong_is_said() -> None:
    names = ["a", "b", "c", "d"]
    planted = pictures.Planted(frozenset("abc"), ("d",), (("a", "b"),), (("a", "b"),))
    right = [(9, 9, "x"), (9, 9, "x"), (8, 9, "y"), None]
    sides = {side: {"seen": right, "pairs": [[0, 1]]} for side in ("ours", "baseline")}
    assert faults(planted, names, sides) == []
    for wrong, said in (
        ({"seen": [*right[:3], (1, 1, "z")]}, "ours takes d, which is corrupt"),
        ({"seen": [*right[:2], None, None]}, "ours refuses c, which is whole"),
        ({"seen": [(9, 8, "x"), *right[1:]]}, "a has (9, 8) pixels for ours and (9, 9) for the baseline"),
        ({"pairs": []}, "ours misses that b is a copy of a"),
        ({"pairs": [[0, 1], [1, 2]]}, "ours takes c for a copy of b"),
    ):
        assert faults(planted, names, sides | {"ours": sides["ours"] | wrong}) == [said]


@pytest.mark.parametrize("number", range(10))
def test_every_planted_damage_is_damage(number: int) -> None:
    from lensmith.images import BadImage, ImageLimits, decode

    pixels = pictures.photo(pictures.np.random.default_rng(number))[:400, :600]
    with pytest.raises(BadImage):
        decode(pictures.corrupted(number, pixels)[1], ImageLimits())
