"""The k-th largest magnitude of elements seen in blocks, exactly, in memory that does not grow with them.

By a bracket: where there are too many elements to hold, a sample of them says between which two magnitudes
the wanted one surely lies; the next pass over the blocks counts those above, and holds what lies between.
Where it was missed, the next pass looks on the side where it must be. Nothing of the merge's search is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

# numpy's, not torch's: its comparisons, counts and selection are several times as fast.
_Sizes = npt.NDArray[np.float32]

# Magnitudes held at a time: 1 MiB.
_HELD = 1 << 18
# Standard errors of a sample's quantile on each side of the wanted one: missed once in 15,000 passes.
_ERRORS = 4.0


def kth_largest(blocks: Callable[[], Iterable[Tensor]], count: int) -> float:
    """The `count`-th largest magnitude, from 1, of the float32 elements that each call of `blocks` gives;
    infinity for 0. Raises ValueError where there are fewer."""
    if count == 0:
        return math.inf
    low, high = 0.0, math.inf
    while True:
        seen = _Seen(low, high)
        for block in blocks():
            seen.look(block.abs().flatten().numpy())
        wanted = count - seen.above
        if wanted <= 0:
            low, high = high, math.inf
        elif wanted <= seen.at_high:
            return high
        elif (wanted := wanted - seen.at_high) > seen.between + seen.at_low:
            if low == 0.0:
                raise ValueError(f"there are fewer than {count} elements")
            low, high = 0.0, low
        elif wanted > seen.between:
            return low
        elif seen.step == 1:
            return seen.largest(wanted)
        else:
            low, high = seen.bracket(wanted)


@dataclass
class _Seen:
    """Of a pass: how many magnitudes lay above `high`, at it, at `low`, and between the two; of those between
    every `step`-th is held."""

    low: float
    high: float
    above: int = 0
    at_high: int = 0
    at_low: int = 0
    between: int = 0
    step: int = 1
    _kept: list[_Sizes] = field(default_factory=list)
    _count: int = 0

    def look(self, sizes: _Sizes) -> None:
        """See magnitudes."""
        low, high = np.float32(self.low), np.float32(self.high)
        above, at_high, at_low, below = (
            int(np.count_nonzero(each)) for each in (sizes > high, sizes == high, sizes == low, sizes < low)
        )
        self.above += above
        self.at_high += at_high
        self.at_low += at_low
        # All of them in a first pass, hardly any in a second.
        inside = sizes[(sizes > low) & (sizes < high)] if above + at_high + at_low + below else sizes
        kept = inside[-self.between % self.step :: self.step].copy()
        self.between += len(inside)
        self._kept.append(kept)
        self._count += len(kept)
        while self._count > _HELD:
            self._kept = [self._held()[::2].copy()]
            self._count, self.step = len(self._kept[0]), 2 * self.step

    def largest(self, wanted: int) -> float:
        """The `wanted`-th largest, from 1, of those that are held."""
        held = self._held()
        return float(np.partition(held, len(held) - wanted)[-wanted])

    def bracket(self, wanted: int) -> tuple[float, float]:
        """Between which two the `wanted`-th largest of those between surely is, as the sample says."""
        share = wanted / self.between
        error = math.sqrt(share * (1 - share) / self._count) + 1 / self._count
        first = math.floor((share - _ERRORS * error) * self._count)
        last = math.ceil((share + _ERRORS * error) * self._count)
        high = self.largest(first + 1) if first >= 0 else self.high
        low = self.largest(last + 1) if last < self._count else self.low
        return low, high

    def _held(self) -> _Sizes:
        """float32 [held]."""
        return np.concatenate(self._kept)
