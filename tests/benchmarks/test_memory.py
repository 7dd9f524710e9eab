"""The benchmark of planned memory runs, is near what is measured, and ends with its line."""

from __future__ import annotations

import pytest

from tests.benchmarks.runs import committed, run

LINE = ["name", "ratio", "ours", "baseline", "unit", "state_ratio", "pass_ratio", "cases"]


@pytest.mark.slow
def test_the_last_line_is_the_result() -> None:
    line, said = run("memory", "--case", "qwen_small")
    assert list(line) == LINE
    assert line["state_ratio"] == 1, "weights and optimizer state are counted, not estimated"
    assert 0.85 < line["pass_ratio"] < 1.15
    assert "parameters, 794 tokens" in said


def test_the_committed_result_is_within_its_bound() -> None:
    result = committed("memory")
    assert list(result)[: len(LINE)] == LINE
    assert result["cases"] == len(result["ratios"]) >= 4
    for name, ratios in result["ratios"].items():
        assert all(1 - result["bound"] < each < 1 + result["bound"] for each in ratios.values()), name
