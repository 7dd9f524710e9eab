"""The paired bootstrap over groups: how far a metric would move with other customers in the exam.

Rows of one group (a customer, a document) are not independent, so whole groups are drawn with replacement
(cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). All
contestants are scored on the same draws, so that what makes a group hard for both cancels in the difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lensmith.report import Interval

# With one group every resample is the same: no interval can be stated.
LEAST_GROUPS = 2
# Cells of the table of draws held in memory at once.
_CELLS = 4_000_000


def resample(tallies: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Sums over `resamples` draws of as many groups as there are, with replacement.

    tallies: shape (groups, ...): each group's sums, of every contestant side by side.
    Returns shape (resamples, ...). The same seed gives the same draws. Raises ValueError for fewer than
    `LEAST_GROUPS` groups: the caller says "undecidable" instead.
    """
    groups = len(tallies)
    if groups < LEAST_GROUPS:
        raise ValueError(f"{groups} group: a bootstrap over groups needs at least {LEAST_GROUPS}")
    rng = np.random.default_rng(seed)
    flat = tallies.reshape(groups, -1)
    sums = np.empty((resamples, flat.shape[1]))
    block = max(1, _CELLS // groups)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = rng.integers(0, groups, size=(size, groups))
        draws += np.arange(size)[:, None] * groups
        times_drawn = np.bincount(draws.ravel(), minlength=size * groups).reshape(size, groups)
        sums[start : start + size] = times_drawn @ flat
    return sums.reshape(resamples, *tallies.shape[1:])


def percentile_interval(values: NDArray[np.float64], confidence: float) -> Interval:
    """The middle `confidence` share of `values`, shape (resamples,), rounded to six decimals."""
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(values, (tail, 1 - tail))
    return Interval(lower=round(float(lower), 6), upper=round(float(upper), 6))
