"""The benchmarks of training run, learn the same on both sides, and end with their line."""

from __future__ import annotations

import pytest

from tests.benchmarks.runs import KEYS, run


@pytest.mark.slow
def test_the_last_line_is_the_result() -> None:
    line, said = run("train_small", "--rows", "32", "--epochs", "1")
    assert list(line) == KEYS
    assert line["unit"] == "samples/s"
    # So short a run is mostly its first steps; the ratio is judged on the whole benchmark.
    assert line["ratio"] > 0
    assert said.count("'threads': 1") == 2
    assert said.count("'attention': 'sdpa'") == 2
