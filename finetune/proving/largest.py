"""The k-th largest magnitude of elements seen in blocks, exactly, in memory that does not grow with them.

By a bracket: where there are too many elements to hold, a sample of them says between which two magnitudes
the wanted one surely lies; the next pass over the blocks counts those above, and holds what lies between.
Where it was missed, the next pass looks on the side where it must be. Nothing of the merge's search is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Magnitudes held at a time: 4 MiB.
_HELD = 1 << 20
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
            seen.look(block.abs().flatten())
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
            return float(seen.held().kthvalue(seen.between - wanted + 1).values)
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
    _kept: list[Tensor] = field(default_factory=list)
    _count: int = 0

    def look(self, sizes: Tensor) -> None:
        """See magnitudes."""
        self.above += int((sizes > self.high).sum())
        self.at_high += int((sizes == self.high).sum())
        self.at_low += int((sizes == self.low).sum())
        inside = sizes[(sizes > self.low) & (sizes < self.high)]
        kept = inside[-self.between % self.step :: self.step].clone()
        self.between += len(inside)
        self._kept.append(kept)
        self._count += len(kept)
        while self._count > _HELD:
            self._kept = [self.held()[::2].clone()]
            self._count, self.step = len(self._kept[0]), 2 * self.step

    def held(self) -> Tensor:
        """float32 [held]."""
        return torch.cat(self._kept)

    def bracket(self, wanted: int) -> tuple[float, float]:
        """Between which two the `wanted`-th largest of those between surely is, as the sample says."""
        held = self.held().sort(descending=True).values
        share = wanted / self.between
        error = math.sqrt(share * (1 - share) / len(held)) + 1 / len(held)
        first = math.floor((share - _ERRORS * error) * len(held))
        last = math.ceil((share + _ERRORS * error) * len(held))
        high = float(held[first]) if first >= 0 else self.high
        low = float(held[last]) if last < len(held) else self.low
        return low, high
