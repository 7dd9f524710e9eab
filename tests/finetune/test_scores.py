"""The best evaluation, and when no more gain is to be expected."""

from __future__ import annotations

from finetune.scores import Scored, best_of, is_over


def scores(*values: float) -> list[Scored]:
    return [Scored(step=10 * number, value=value, rows=4) for number, value in enumerate(values, 1)]


def test_the_best_is_the_earliest_of_equals() -> None:
    best = best_of(scores(0.2, 0.7, 0.7, 0.6), "field_f1")
    assert best is not None
    assert best.step == 20
    lower = best_of(scores(0.2, 0.1, 0.1), "character_error_rate")
    assert lower is not None
    assert lower.step == 20
    assert best_of([], "field_f1") is None


def test_patience_counts_evaluations_without_gain() -> None:
    assert not is_over(scores(0.5, 0.5), "field_f1", 2)
    assert is_over(scores(0.5, 0.5, 0.4), "field_f1", 2)
    assert not is_over(scores(0.5, 0.4, 0.6, 0.5), "field_f1", 2)
    assert is_over(scores(0.5, 0.6), "character_error_rate", 1)
    assert not is_over(scores(0.5, 0.5, 0.5), "field_f1", 0)
    assert not is_over([], "field_f1", 1)
