"""The benchmark of token counts runs, is right where it is compared, and ends with its line."""

from __future__ import annotations

import pytest

from tests.benchmarks.runs import KEYS, committed, run


@pytest.mark.slow
def test_the_last_line_is_the_result() -> None:
    line, said = run("plan", "--rows", "600", "--sample", "4")
    assert list(line) == KEYS
    assert line["unit"] == "s for 600 rows"
    # 242 were measured; a busy machine may take a good part of it away.
    assert line["ratio"] > 30
    assert "all 4 counts are equal" in said


def test_the_committed_result_keeps_the_promise() -> None:
    result = committed("plan")
    assert list(result)[: len(KEYS)] == KEYS
    assert result["unit"] == "s for 100,000 rows"
    assert result["ratio"] >= 100
