"""The benchmark of reading rows at random runs, compares what was read, and ends with its line."""

from __future__ import annotations

import pytest

from tests.benchmarks.runs import KEYS, committed, run


@pytest.mark.slow
def test_the_last_line_is_the_result() -> None:
    line, _ = run("rows", "--rows", "300")
    assert list(line) == KEYS
    assert line["unit"] == "rows/s"
    assert line["ratio"] > 20


def test_the_committed_result_keeps_the_promise() -> None:
    result = committed("rows")
    assert list(result)[: len(KEYS)] == KEYS
    assert result["ratio"] >= 100
