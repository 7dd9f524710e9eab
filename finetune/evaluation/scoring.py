"""Verdicts on rows in; metrics with intervals, and the first contestant's difference to the second, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.bootstrap import LEAST_GROUPS, percentile_interval, resample
from finetune.evaluation.metrics import COUNTED, TALLY, Judged, group_tallies, metric_values
from lensmith.recipe import Evaluate
from lensmith.report import Difference, MetricName, Score


@dataclass(frozen=True)
class Scored:
    """scores: one mapping a contestant. differences: first minus second; empty for a single contestant."""

    scores: tuple[dict[MetricName, Score], ...]
    differences: dict[MetricName, Difference]
    groups: int


def score(contestants: Sequence[Sequence[Judged]], names: Sequence[MetricName], settings: Evaluate) -> Scored:
    """Score one contestant, or two that answered the same rows.

    With fewer than two groups every interval is None: undecidable, never a made-up certainty.
    """
    groups = sorted({row.group for row in contestants[0]})
    # Contestants stand side by side in each group, so that one draw of groups counts for all of them.
    table = np.stack([group_tallies(judged, groups) for judged in contestants], axis=1)
    sums = table.sum(axis=0)
    values = metric_values(sums)
    drawn = None
    if len(groups) >= LEAST_GROUPS:
        drawn = metric_values(resample(table, settings.resamples, settings.seed))

    def contestant_scores(number: int) -> dict[MetricName, Score]:
        return {
            name: Score(
                value=round(float(values[name][number]), 6),
                n=int(sums[number, TALLY.index(COUNTED[name][0])]),
                unit=COUNTED[name][1],
                interval=None
                if drawn is None
                else percentile_interval(drawn[name][:, number], settings.confidence),
            )
            for name in names
        }

    differences: dict[MetricName, Difference] = {}
    if len(contestants) == 2:
        differences = {
            name: Difference(
                value=round(float(values[name][0] - values[name][1]), 6),
                interval=None
                if drawn is None
                else percentile_interval(drawn[name][:, 0] - drawn[name][:, 1], settings.confidence),
            )
            for name in names
        }
    return Scored(
        tuple(contestant_scores(number) for number in range(len(contestants))), differences, len(groups)
    )
