"""The benchmark of resuming runs and ends with its line."""

from __future__ import annotations

import pytest

from tests.benchmarks.runs import KEYS, committed, run


@pytest.mark.slow
def test_the_last_line_is_the_result() -> None:
    line, _ = run("resume", "--far", "40", "--near", "2")
    assert list(line) == KEYS
    assert line["unit"] == "s to the first step after step 40; the baseline's after step 2"


def test_the_committed_result_keeps_the_promise() -> None:
    """Far into a training a resume takes as long as at its beginning, but for noise."""
    result = committed("resume")
    assert list(result)[: len(KEYS)] == KEYS
    assert "after step 10,000" in result["unit"]
    assert result["ratio"] >= 0.8
