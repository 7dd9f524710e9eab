"""What evaluations during a training came to: the best of them, and whether more are worth waiting for."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from lensmith.report import LOWER_IS_BETTER, MetricName


class Scored(BaseModel):
    """One evaluation: after which step, the metric's value (6 decimals), of how many rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    step: int
    value: float
    rows: int


def best_of(scores: Sequence[Scored], metric: MetricName) -> Scored | None:
    """The best evaluation, the earliest of equal ones; None without any."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return max(scores, key=lambda each: (sign * each.value, -each.step), default=None)


def is_over(scores: Sequence[Scored], metric: MetricName, patience: int) -> bool:
    """Whether the last `patience` evaluations brought no gain; never with a patience of 0."""
    best = best_of(scores, metric)
    if best is None or not patience:
        return False
    return sum(each.step > best.step for each in scores) >= patience
