"""Clusters: what is joined by any chain of pairs belongs together. Arrays throughout, no object a row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.int32]


class Clusters:
    """Disjoint sets over 0 .. n-1, each named by its least member: 4 bytes a member, in any order."""

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size, dtype=np.int32)

    def join(self, left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]) -> None:
        """Join left[i] with right[i] for all i. Raises IndexError for a member that does not exist."""
        left, right = np.asarray(left), np.asarray(right)
        if len(left) and min(left.min(), right.min()) < 0:
            raise IndexError("a member below 0")
        while len(left):
            a, b = self._roots(left), self._roots(right)
            apart = a != b
            left, right = a[apart], b[apart]
            high, low = np.maximum(left, right), np.minimum(left, right)
            # Where several want to hang the same root, the least wins; the others are tried again.
            np.minimum.at(self._parent, high, low)

    def labels(self) -> Members:
        """The cluster of each member: its least member, int32 [n]."""
        return self._roots(np.arange(len(self._parent))).astype(np.int32)

    def _roots(self, members: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        while True:
            # Halving: every look makes the paths shorter for the next.
            above = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return self._parent[members]
            self._parent = above
