"""The benchmark of serving a held-out set runs, answers alike on all sides, and ends with its line."""

from __future__ import annotations

import pytest

from benchmarks.predict import BATCHES, check_equal, that_differ
from tests.benchmarks.runs import KEYS, run

MORE = ["batched", "ratio_batched", "ratio_with_start", "ratio_batched_with_start"]


@pytest.mark.slow
@pytest.mark.vllm
def test_the_last_line_is_the_result() -> None:
    line, said = run("predict", "--rows", "8", "--case", "small")
    assert list(line) == [*KEYS, *MORE]
    assert line["unit"] == "rows/s"
    # So few rows of so small a model say nothing of speed.
    assert line["ratio"] > 0
    assert [each.split()[0] for each in said.splitlines() if each.startswith(("ours", "b"))] == [
        "ours",
        "batched",
        "baseline",
    ]


def test_a_batch_that_holds_all_rows_is_asked_once() -> None:
    assert that_differ(BATCHES, 8) == [8]
    assert that_differ(BATCHES, 20) == [16, 20]
    assert that_differ(BATCHES, 256) == list(BATCHES)


def test_one_other_token_is_no_result() -> None:
    answers = {"r0": [1, 2], "r1": [3]}
    found = {side: {"answers": dict(answers)} for side in ("ours", "batched", "baseline")}
    assert check_equal(found) == [1, 2]
    found["batched"]["answers"]["r1"] = [4]
    with pytest.raises(SystemExit, match=r"batched answers 1 of 2 rows otherwise: \['r1'\]"):
        check_equal(found)
    found["batched"]["answers"] = answers | {"r2": [1]}
    with pytest.raises(SystemExit, match="batched answers 0 of 2 rows otherwise"):
        check_equal(found)
