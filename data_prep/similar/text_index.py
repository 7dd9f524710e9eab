"""Near copies among many long texts, found through files: memory stays below 200 MB for a million texts.

Texts with a key in common are candidates (locality-sensitive hashing), never all pairs. In a bucket a text
meets its neighbours, sorted by the next key so that copies lie side by side, and the first of the bucket:
enough for clusters, linear in the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from data_prep.similar.clusters import Clusters
from data_prep.similar.text import BANDS, JACCARD, PRINT, jaccard, sign, triples

_KEY, _DIGEST = 8, 16
_NEIGHBOURS = 8
# Four standard deviations below the bound on the Jaccard index.
_SLACK = 0.2
# Comparisons that may fail before a text is no longer compared: one of a crowd that shares a template.
_TRIES = 32
_BATCH = 1 << 16

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NearTexts:
    """Pairs of texts, `first` < `second`, int64 [pairs] ascending: each text is joined to one that it
    repeats, not to all of them."""

    first: Numbers
    second: Numbers


class TextIndex:
    """Signatures of at most `most` texts, in files in `folder`; texts are numbered as they are added."""

    def __init__(self, folder: Path, most: int) -> None:
        self._most, self._count = most, 0
        self._estimates = folder / "text_estimates"
        with ExitStack() as stack:
            self._keys = stack.enter_context((folder / "text_keys").open("w+b"))
            self._digests = stack.enter_context((folder / "text_digests").open("w+b"))
            self._written = stack.enter_context(self._estimates.open("wb"))
            self._files = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def __len__(self) -> int:
        return self._count

    def add(self, texts: Sequence[str]) -> None:
        """Add some thousand texts. Raises ValueError beyond `most`."""
        if self._count + len(texts) > self._most:
            raise ValueError(f"more than {self._most} texts")
        signed = [sign(text) for text in texts]
        if not signed:
            return
        # A band lies in one piece, so that it is read in one.
        for band, keys in enumerate(np.stack([each.keys for each in signed], 1)):
            self._keys.seek((band * self._most + self._count) * _KEY)
            self._keys.write(keys.tobytes())
        self._digests.write(b"".join(each.digest for each in signed))
        self._written.write(np.stack([each.estimate for each in signed]).tobytes())
        self._count += len(signed)

    def find(self, read: Callable[[int], str], bound: float = JACCARD) -> NearTexts:
        """Pairs of texts with a Jaccard index of at least `bound`; `read` gives a text by its number."""
        for file in (self._keys, self._digests, self._written):
            file.flush()
        original = self._originals()
        repeats = np.flatnonzero(original != np.arange(self._count))
        clusters = Clusters(self._count)
        clusters.join(original[repeats], repeats)
        found = [np.stack([original[repeats], repeats])]
        distinct = np.flatnonzero(original == np.arange(self._count))
        known = lru_cache(maxsize=1024)(lambda number: triples(read(number)))
        failed = np.zeros(self._count, np.uint8)
        for pairs in self._neighbours(distinct):
            labels = clusters.labels()
            asked = (labels[pairs[0]] != labels[pairs[1]]) & (failed[pairs] < _TRIES).all(0)
            pairs = self._alike(pairs[:, asked], bound - _SLACK)
            near = np.zeros(pairs.shape[1], bool)
            for at, (left, right) in enumerate(pairs.T.tolist()):
                if failed[left] < _TRIES and failed[right] < _TRIES:
                    near[at] = jaccard(known(left), known(right)) >= bound
                    failed[[left, right]] += not near[at]
            clusters.join(*pairs[:, near])
            found.append(pairs[:, near])
        every = np.concatenate(found, 1)
        first, second = np.sort(every, 0)
        order = np.lexsort((second, first))
        return NearTexts(first[order], second[order])

    def _originals(self) -> Numbers:
        """For each text the first that says the same, int64 [texts]."""
        self._digests.seek(0)
        digests = np.frombuffer(self._digests.read(self._count * _DIGEST), f"V{_DIGEST}")
        _, first, which = np.unique(digests, return_index=True, return_inverse=True)
        return first[which.reshape(-1)]

    def _neighbours(self, distinct: Numbers) -> Iterator[Numbers]:
        """Candidates, int64 [2, pairs], those that lie side by side first."""
        for steps in (range(1, 2), range(2, _NEIGHBOURS + 1)):
            for band in range(BANDS):
                keys, after = self._band(band)[distinct], self._band((band + 1) % BANDS)[distinct]
                order = np.lexsort((after, keys))
                keys, members = keys[order], distinct[order]
                for step in steps:
                    together = keys[step:] == keys[:-step]
                    yield np.stack([members[:-step][together], members[step:][together]])
                if steps.start > 1 and len(keys):
                    begins = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
                    leaders = members[np.repeat(begins, np.diff(np.r_[begins, len(keys)]))]
                    apart = leaders != members
                    yield np.stack([leaders[apart], members[apart]])

    def _band(self, band: int) -> npt.NDArray[np.uint64]:
        self._keys.seek(band * self._most * _KEY)
        return np.frombuffer(self._keys.read(self._count * _KEY), np.uint64)

    def _alike(self, pairs: Numbers, bound: float) -> Numbers:
        """The pairs whose signatures are equal in a share of `bound` of their places."""
        if not pairs.size:
            return pairs
        estimates = np.memmap(self._estimates, np.uint8, "r", shape=(self._count, PRINT))
        kept = [
            (estimates[pairs[0, at : at + _BATCH]] == estimates[pairs[1, at : at + _BATCH]]).mean(1) >= bound
            for at in range(0, pairs.shape[1], _BATCH)
        ]
        return pairs[:, np.concatenate(kept)]
