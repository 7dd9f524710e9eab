"""The benchmark of a million rows runs, loses none, and ends with its line."""

from __future__ import annotations

import pytest

from tests.benchmarks.runs import run


@pytest.mark.slow
def test_the_last_line_is_the_result() -> None:
    line, _ = run("million", "--rows", "600", "--pictures", "60")
    assert list(line) == ["name", "ours", "unit", "rows", "taken", "seconds", "ours_peak_mb"]
    assert line["unit"] == "rows/s"
    assert line["taken"] == line["rows"] == 600
    assert 0 < line["ours_peak_mb"] < 1000
