"""The verdict on two members of a crowd by their details, as strict as the crowd asks for.

Other forms of one template differ much where they are filled by hand, little where a typewriter or a printer
wrote a few small digits: no one limit tells copies from them. So each crowd is asked how much strangers in it
differ, and copies have to differ by clearly less.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_prep.similar.details import Details
from data_prep.similar.fine import differences

Numbers = npt.NDArray[np.int64]

# Measured on dense pages of one template (tests/data_prep/similar), filled by hand: copies, cropped by up to
# 5% an edge, resized and recompressed, reach 1.35; pages that differ in one of eight lines begin at 1.41,
# strangers at 1.8.
LIMIT = 1.4
# Copies that are not cropped reach 0.6. Strangers that differ by less than this are not told apart.
_LEAST = 0.6
# Parts of what strangers differ by at the median: by hand 2.1; typed in 24, 20, 14 pixels of 1400 1.4, 1.15
# and 0.9, and cropped copies of those 1.2: of typed pages, only copies that are not cropped are found.
_STRICTNESS = 0.7
# Pairs drawn from a crowd; up to half of them may be copies.
_DRAWN = 64
# Pairs whose details are in memory at once: 20 MB.
_BATCH = 256


class CrowdJudge:
    """For `count` pictures, of which some have details, and their crowds, each int64 [members]."""

    def __init__(self, details: Details | None, crowds: Sequence[Numbers], count: int) -> None:
        self._details = details
        self._limits = np.full(count, LIMIT, np.float32)
        for members in crowds:
            self._limits[members] = self._limit(members[self.can_tell(members)])

    def can_tell(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which pictures have a detail: bool, of the shape of `numbers`."""
        return np.zeros(numbers.shape, bool) if self._details is None else self._details.has(numbers)

    def same(self, left: Numbers, right: Numbers) -> npt.NDArray[np.bool_]:
        """Whether each two show one page, bool [n]; yes where one of them has no detail."""
        verdict = np.ones(len(left), bool)
        told = np.flatnonzero(self.can_tell(left) & self.can_tell(right))
        left, right = left[told], right[told]
        verdict[told] = self._differences(left, right) < np.minimum(self._limits[left], self._limits[right])
        return verdict

    def _limit(self, members: Numbers) -> float:
        if len(members) < 2:
            return LIMIT
        # Drawn, not taken in steps: copies often stand in the order of their originals.
        draws = np.random.default_rng(len(members))
        first = draws.integers(0, len(members), _DRAWN)
        second = (first + draws.integers(1, len(members), _DRAWN)) % len(members)
        strangers = np.median(self._differences(members[first], members[second]))
        return float(np.clip(_STRICTNESS * strangers, _LEAST, LIMIT))

    def _differences(self, left: Numbers, right: Numbers) -> npt.NDArray[np.float32]:
        found, details = [np.zeros(0, np.float32)], self._details
        if details is not None:
            for at in range(0, len(left), _BATCH):
                part = slice(at, at + _BATCH)
                found.append(differences(details.take(left[part]), details.take(right[part])))
        return np.concatenate(found)
