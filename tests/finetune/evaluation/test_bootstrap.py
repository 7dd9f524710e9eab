"""The bootstrap: paired, over groups, seeded, fast, and honest about its coverage."""

from __future__ import annotations

import time

import numpy as np
import pytest

from finetune.evaluation.bootstrap import percentile_interval, resample
from finetune.evaluation.metrics import judge
from finetune.evaluation.scoring import score
from lensmith.recipe import Evaluate
from lensmith.report import METRICS, TEXT_METRICS


def test_the_same_seed_gives_the_same_draws() -> None:
    tallies = np.random.default_rng(0).random((30, 8))
    assert (resample(tallies, 200, 17) == resample(tallies, 200, 17)).all()
    assert (resample(tallies, 200, 17) != resample(tallies, 200, 18)).any()


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    tallies = np.arange(30.0).reshape(10, 3)
    whole = resample(tallies, 100, 17)
    monkeypatch.setattr("finetune.evaluation.bootstrap._CELLS", 70)
    assert (resample(tallies, 100, 17) == whole).all()


def test_each_draw_takes_as_many_whole_groups_as_there_are() -> None:
    """Groups of 1 and of 100 rows: a resample of 2 groups has 2, 101 or 200 rows, nothing between."""
    drawn = resample(np.array([[1.0], [100.0]]), 400, 17)
    assert set(drawn[:, 0]) == {2.0, 101.0, 200.0}


def test_contestants_are_scored_on_the_same_draws() -> None:
    """A rival that is always 0.1 below moves with the groups; the paired difference does not move at all."""
    first = np.random.default_rng(1).random((40, 1, 1))
    drawn = resample(np.concatenate([first, first - 0.1], axis=1), 500, 17)
    difference = (drawn[:, 0] - drawn[:, 1])[:, 0] / 40
    assert np.ptp(difference) < 1e-9
    assert np.ptp(drawn[:, 0] / 40) > 0.1


def test_groups_not_rows_are_drawn() -> None:
    """Twenty groups of fifty equal rows: drawing rows would give an interval about seven times too narrow."""
    rows = [
        judge(f"{group}-{i}", str(group), "x", "x" if group % 2 else "y", "text")
        for group in range(20)
        for i in range(50)
    ]
    interval = score([rows], TEXT_METRICS, Evaluate()).scores[0]["exact_match"].interval
    assert interval is not None
    width = interval.upper - interval.lower
    by_groups = 2 * 1.96 * (0.25 / 20) ** 0.5
    assert width == pytest.approx(by_groups, rel=0.2)


def test_coverage() -> None:
    """Of 400 exams of 40 groups, the 95% interval holds the true rate in about 95 of 100."""
    rng = np.random.default_rng(5)
    held = 0
    for exam in range(400):
        right = rng.binomial(5, 0.7, size=40)
        tallies = np.stack([right, np.full(40, 5)], axis=1).astype(float)
        drawn = resample(tallies, 400, exam)
        interval = percentile_interval(drawn[:, 0] / drawn[:, 1], 0.95)
        held += interval.lower <= 0.7 <= interval.upper
    assert 0.91 <= held / 400 <= 0.98


def test_one_group_is_undecidable() -> None:
    rows = [judge(str(i), "only", "ab", "ab", "text") for i in range(50)]
    scored = score([rows, rows], TEXT_METRICS, Evaluate())
    assert scored.scores[0]["exact_match"].value == 1.0
    assert scored.scores[0]["exact_match"].interval is None
    assert scored.differences["exact_match"].interval is None
    with pytest.raises(ValueError, match="at least 2"):
        resample(np.ones((1, 3)), 100, 17)


def test_two_thousand_resamples_of_a_large_exam_take_under_a_second() -> None:
    rows = [judge(str(i), str(i % 1000), '{"a": "1"}', '{"a": "2"}', "json") for i in range(5000)]
    started = time.process_time()
    score([rows, rows], METRICS, Evaluate(resamples=2000))
    assert time.process_time() - started < 1.0
