"""A banded index over 64-bit hashes: near ones are found among those that agree in one band.

With b bands, every pair at a Hamming distance below b agrees in one at least and is found for certain;
farther pairs are found with a probability that falls with the distance. A bucket that holds very many hashes
(a template, a blank page) is looked at only in a window around the place where the asked hash would stand in
sorted order, so work grows with the number of hashes, never with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.similar.hashes import Hashes

WINDOW = 64
_WIDTH = 64
# Candidates compared at once: 2 million take about 100 MB.
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Hits:
    """Asked and stored numbers that lie near each other, int64 [n], and their Hamming distances, uint8 [n].

    Ordered by asked, then stored; no pair stands twice.
    """

    asked: npt.NDArray[np.int64]
    stored: npt.NDArray[np.int64]
    distance: npt.NDArray[np.uint8]


class BandIndex:
    """Stored hashes, sorted once for each band. 1 million hashes in 4 bands take about 60 MB."""

    def __init__(self, hashes: Hashes, bands: int = 4) -> None:
        if not 3 <= bands <= 16:
            raise ValueError(f"{bands} bands: 3 to 16 are possible with 64 bits")
        self.bands = bands
        self._bits = _WIDTH // bands
        self._orders: list[npt.NDArray[np.uint32]] = []
        self._sorted: list[Hashes] = []
        self._starts: list[npt.NDArray[np.int64]] = []
        for band in range(bands):
            turned = self._turned(hashes, band)
            order = np.argsort(turned, kind="stable").astype(np.uint32)
            ordered = turned[order]
            keys = np.arange((1 << self._bits) + 1, dtype=np.uint64)
            bounds = np.searchsorted(ordered >> np.uint64(_WIDTH - self._bits), keys)
            self._orders.append(order)
            self._sorted.append(ordered)
            self._starts.append(bounds.astype(np.int64))

    def ask(self, hashes: Hashes, distance: int, window: int = WINDOW, only_earlier: bool = False) -> Hits:
        """The stored hashes within `distance` of each asked one that agree with it in a band.

        At most `window` stored hashes of a bucket are compared with one asked hash. With `only_earlier`, only
        stored numbers below the asked one are given: for an array that is asked about itself.
        """
        codes, distances = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint8)]
        for band in range(self.bands):
            turned = self._turned(hashes, band)
            low, size = self._buckets(turned, band, window)
            for asked, places in _enumerate(low, size):
                apart = np.bitwise_count(self._sorted[band][places] ^ turned[asked])
                near = apart <= distance
                asked, stored, apart = asked[near], self._orders[band][places[near]], apart[near]
                if only_earlier:
                    below = stored < asked
                    asked, stored, apart = asked[below], stored[below], apart[below]
                codes.append(asked.astype(np.uint64) << np.uint64(32) | stored)
                distances.append(apart)
        code, first = np.unique(np.concatenate(codes), return_index=True)
        asked, stored = code >> np.uint64(32), code & np.uint64(0xFFFFFFFF)
        return Hits(asked.astype(np.int64), stored.astype(np.int64), np.concatenate(distances)[first])

    def _buckets(
        self, turned: Hashes, band: int, window: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        keys = (turned >> np.uint64(_WIDTH - self._bits)).astype(np.int64)
        low, high = self._starts[band][keys], self._starts[band][keys + 1]
        full = np.flatnonzero(high - low > window)
        if len(full):
            # Equal hashes stand together: the window lies around the first of them.
            middle = np.searchsorted(self._sorted[band], turned[full])
            begin = np.clip(middle - window // 2, low[full], high[full] - window)
            low[full], high[full] = begin, begin + window
        return low, high - low

    def _turned(self, hashes: Hashes, band: int) -> Hashes:
        """The hashes with the band's bits on top."""
        if band == 0:
            return hashes
        left, right = np.uint64(band * self._bits), np.uint64(_WIDTH - band * self._bits)
        return (hashes << left) | (hashes >> right)


def near_pairs(hashes: Hashes, distance: int, bands: int = 4, start: int = 0) -> Hits:
    """Pairs of one array of hashes: asked > stored, asked >= start; equal hashes pair with the first of them.

    Every hash of a set of equal ones is thus joined to the others, by as many pairs as there are hashes.
    """
    values, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    hits = BandIndex(values, bands).ask(values, distance, only_earlier=True)
    # The earliest row stands for its value; a pair of values is a pair of their earliest rows.
    left, right = first[hits.asked], first[hits.stored]
    asked, stored, apart = np.maximum(left, right), np.minimum(left, right), hits.distance
    rows = np.arange(len(hashes))
    again = rows != first[which]
    asked = np.concatenate([asked, rows[again]])
    stored = np.concatenate([stored, first[which][again]])
    apart = np.concatenate([apart, np.zeros(int(again.sum()), np.uint8)])
    order = np.lexsort((stored, asked))
    order = order[asked[order] >= start]
    return Hits(asked[order].astype(np.int64), stored[order].astype(np.int64), apart[order])


def _enumerate(
    low: npt.NDArray[np.int64], size: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Every (number of the asked, place in its bucket), in chunks of about _CHUNK."""
    ends = np.cumsum(size)
    at = 0
    while at < len(low):
        before = ends[at - 1] if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        sizes = size[at:stop]
        asked = np.repeat(np.arange(at, stop), sizes)
        offsets = np.arange(len(asked)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        if len(asked):
            yield asked, low[asked] + offsets
        at = stop
