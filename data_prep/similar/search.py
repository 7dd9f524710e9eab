"""Near-duplicate images: recompressed, resized, cropped a little, turned, mirrored or turned to grey.

Candidates come from the hashes (hashes.py, bands.py), the verdict from the thumbnails (same.py). A picture
with very many candidates is one of a crowd, the filled forms of one template: it is compared with its nearest
here, and the crowd as a whole by what its members do not share (crowd.py). Two of a crowd have to be one in
their details as well, where both have one (crowd_judge.py).

Measured (tests/data_prep/similar makes the same pictures): recall of copies, and wrong pairs.

| | photographs (22) | bank forms, 256 x 128 (100 of 300) | dense A4 pages, 8 lines by hand (60 of 250) |
|---|---|---|---|
| JPEG quality 30, 60, 95; grey | 1.00 | 1.00 | 1.00 |
| resized 0.3, 0.5, 2 times | 1.00 | 1.00 | 1.00 |
| 90, 180, 270 degrees; mirrored | 1.00 | 1.00 | 1.00 |
| 1%, 2%, 3% off each edge | 1.00 | 1.00 | 1.00 |
| 5% off each edge, or off some | 1.00 | 0.95 to 1.00 | 1.00 |
| cropped, turned, resized, recompressed | 0.94 to 1.00 | 0.90 to 0.99 | 1.00 |
| wrong pairs among the originals | 0 of 237 | 0 of 44,850 | 0 of 31,125 |

The same pages with their lines typed, in 14, 20 or 24 pixels of 1400: copies that are not cropped 0.92 to
1.00, cropped ones none, no wrong pairs (with thumbnails alone 578, 118 and 11 among 40 pages and 48 copies).
In a group of at most 8 alike, and where pictures have no detail (`lensmith inspect` makes none), thumbnails
alone decide: cropped pages of one template are missed then, and pages that differ by a few typed lines may be
joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.similar.bands import BandIndex
from data_prep.similar.clusters import Clusters
from data_prep.similar.crowd import crowd_candidates, fine_candidates
from data_prep.similar.crowd_judge import CrowdJudge
from data_prep.similar.details import Details
from data_prep.similar.hashes import ORIENTATIONS, VARIANTS, best_variant, hashes, variants
from data_prep.similar.same import STRICTNESS, Strictness, compare, is_same
from data_prep.similar.thumbnail import SIDE, Thumbnails

# Of 63 bits. The nearest of the 25 crops leaves at most 9 (measured; see hashes.EDGES).
DISTANCE = 9
# Grey levels (standard deviation of the thumbnail): a blank page is like every other and proves nothing.
# Below it pictures are one only pixel for pixel, which data_prep/duplicates.py sees.
LEAST_CONTRAST = 2.0
# 5% off both ends of one edge and none of the other change the aspect by 11%.
_ASPECT = 1.13
# With more candidates a picture is one of a crowd; it is compared with so many of them, the nearest. Set, not
# measured: they bound the work, a dozen forms are a crowd, and a crowd's copies are found by crowd.py.
_CROWDED = 8
_NEAREST = 8
_BATCH = 256
_TURNS = len(ORIENTATIONS)
_TRANSPOSED = np.array([transpose for transpose, _, _ in ORIENTATIONS])

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fingerprints:
    """Thumbnails uint8 [n, 64, 64] (a memory map will do), sizes (width, height) int32 [n, 2], and details:
    without them cropped pages of one template are seldom found."""

    thumbnails: Thumbnails
    sizes: npt.NDArray[np.int32]
    details: Details | None = None

    def __post_init__(self) -> None:
        count = len(self.sizes)
        if self.thumbnails.shape != (count, SIDE, SIDE) or self.sizes.shape != (count, 2):
            raise ValueError(f"thumbnails {self.thumbnails.shape} do not fit sizes {self.sizes.shape}")

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True)
class NearImages:
    """Pairs of the same picture, `first` < `second`, int64 [pairs] in ascending order."""

    first: Numbers
    second: Numbers


@dataclass(frozen=True)
class _Candidates:
    """`asked`, turned and cropped by `variant`, is near `stored`; `crowds` are pairs within one crowd."""

    asked: Numbers
    stored: Numbers
    variant: Numbers
    crowds: list[Numbers]


def find_near(pictures: Fingerprints, start: int = 0, strictness: Strictness = STRICTNESS) -> NearImages:
    """Pairs that show the same picture, the second of them with a number >= `start`.

    Every picture is joined to one that it repeats, not to all of them: what counts are clusters. Pictures
    with equal thumbnails pair with the first of them, those below LEAST_CONTRAST with none. Deterministic.
    Time grows with the number of pictures.
    """
    rows, original, repeats = _distinct(pictures)
    equal = repeats >= start
    firsts, seconds = [original[equal]], [repeats[equal]]
    found = _candidates(pictures.thumbnails, rows, start)
    in_crowd = np.zeros(len(pictures), bool)
    for members in found.crowds:
        in_crowd[members] = True
    same = _judge(pictures, found, in_crowd, strictness)
    judge = CrowdJudge(pictures.details, found.crowds, len(pictures))
    doubtful = np.flatnonzero(same & in_crowd[found.asked] & in_crowd[found.stored])
    same[doubtful] = judge.same(found.asked[doubtful], found.stored[doubtful])
    firsts.append(np.minimum(found.asked, found.stored)[same])
    seconds.append(np.maximum(found.asked, found.stored)[same])
    for members in found.crowds:
        for pairs in _same_in_crowd(pictures, members, start, judge, strictness):
            firsts.append(pairs[:, 0])
            seconds.append(pairs[:, 1])
    codes = np.unique(np.concatenate(firsts) * len(pictures) + np.concatenate(seconds))
    count = max(len(pictures), 1)
    return NearImages(codes // count, codes % count)


def _distinct(pictures: Fingerprints) -> tuple[Numbers, Numbers, Numbers]:
    """Rows to search; for repeated thumbnails the original and the repeats. None of too little contrast."""
    digests = np.empty(len(pictures), np.uint64)
    contrast = np.empty(len(pictures), np.float32)
    for number, picture in enumerate(pictures.thumbnails):
        # Equal thumbnails of unlike shapes are two pictures.
        width, height = pictures.sizes[number]
        digests[number] = xxhash.xxh3_64_intdigest(picture.tobytes(), round(np.log(width / height) * 8) + 64)
        contrast[number] = picture.std()
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    numbers = np.arange(len(pictures))
    original = first[which]
    plain = contrast >= LEAST_CONTRAST
    repeats = numbers[(original != numbers) & plain]
    rows = numbers[(original == numbers) & plain]
    return rows, original[repeats], repeats


def _candidates(thumbnails: Thumbnails, rows: Numbers, start: int) -> _Candidates:
    """Search every row under all its variants, those before `start` only among the rows from `start` on."""
    new = rows[rows >= start]
    stored = _hash_all(thumbnails, rows)
    everything = BandIndex(stored)
    only_new = BandIndex(stored[len(rows) - len(new) :])
    found: list[Numbers] = []
    links: list[Numbers] = []
    for at in range(0, len(rows), _BATCH):
        batch = rows[at : at + _BATCH]
        for asked, index, among in (
            (batch[batch < start], only_new, new),
            (batch[batch >= start], everything, rows),
        ):
            if len(asked) and len(among):
                direct, crowd = _ask(thumbnails, asked, index, among)
                found.append(direct)
                links.append(crowd)
    table = np.concatenate([np.zeros((0, 4), np.int64), *found])
    # Each pair was asked from both sides: the nearer variant tells better how the two lie.
    low, high = table[:, :2].min(1), table[:, :2].max(1)
    order = np.lexsort((table[:, 2], table[:, 3], high, low))
    table, low, high = table[order], low[order], high[order]
    once = np.ones(len(table), bool)
    once[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    table = table[once]
    return _Candidates(
        table[:, 0],
        table[:, 1],
        table[:, 2],
        _crowds(np.concatenate([np.zeros((0, 2), np.int64), *links]), len(thumbnails)),
    )


def _hash_all(thumbnails: Thumbnails, rows: Numbers) -> npt.NDArray[np.uint64]:
    parts = [hashes(thumbnails[rows[at : at + _BATCH]]) for at in range(0, len(rows), _BATCH)]
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def _ask(thumbnails: Thumbnails, asked: Numbers, index: BandIndex, among: Numbers) -> tuple[Numbers, Numbers]:
    """Candidates [n, 4] of asked, stored, variant, distance; and links [n, 2] between members of a crowd."""
    hits = index.ask(variants(thumbnails[asked]).reshape(-1), DISTANCE)
    who, variant = hits.asked // VARIANTS, hits.asked % VARIANTS
    table = np.stack([asked[who], among[hits.stored], variant, hits.distance.astype(np.int64)], 1)
    table = table[table[:, 0] != table[:, 1]]
    table = table[np.lexsort((table[:, 2], table[:, 3], table[:, 1], table[:, 0]))]
    once = np.ones(len(table), bool)
    once[1:] = (table[1:, :2] != table[:-1, :2]).any(1)
    table = table[once]
    # Rank of each candidate among those of the same asked row, the nearest first.
    table = table[np.lexsort((table[:, 1], table[:, 3], table[:, 0]))]
    _, begins, which, counts = np.unique(
        table[:, 0], return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.arange(len(table)) - begins[which]
    crowded = counts[which] > _CROWDED
    return table[~crowded | (rank < _NEAREST)], table[crowded][:, :2]


def _crowds(links: Numbers, count: int) -> list[Numbers]:
    """The members of each crowd, ascending; crowds in the order of their first members."""
    if not len(links):
        return []
    clusters = Clusters(count)
    clusters.join(links[:, 0], links[:, 1])
    members = np.unique(links)
    labels = clusters.labels()[members]
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return [part.astype(np.int64) for part in np.split(members[order], cuts)]


def _by_best_variant(thumbnails: Thumbnails, pairs: Numbers) -> _Candidates:
    """The candidates of crowd_candidates with the way in which the two of a pair lie."""
    asked, stored, variant = pairs[:, 0].copy(), pairs[:, 1].copy(), np.zeros(len(pairs), np.int64)
    for at in range(0, len(pairs), _BATCH):
        part = slice(at, at + _BATCH)
        left, right = thumbnails[pairs[part, 0]], thumbnails[pairs[part, 1]]
        forward, near = best_variant(left, right)
        backward, nearer = best_variant(right, left)
        swap = nearer < near
        variant[part] = np.where(swap, backward, forward)
        asked[part] = np.where(swap, pairs[part, 1], pairs[part, 0])
        stored[part] = np.where(swap, pairs[part, 0], pairs[part, 1])
    return _Candidates(asked, stored, variant, [])


def _same_in_crowd(
    pictures: Fingerprints, members: Numbers, start: int, judge: CrowdJudge, strictness: Strictness
) -> Iterator[Numbers]:
    """Pairs [n, 2] of a crowd that are the same picture; those of two with a detail are told by it alone."""
    detailed = judge.can_tell(members)
    if pictures.details is not None:
        pairs = fine_candidates(pictures.details, members[detailed], start)
        pairs = pairs[_of_one_shape(pictures, _by_best_variant(pictures.thumbnails, pairs))]
        yield pairs[judge.same(pairs[:, 0], pairs[:, 1])]
    if not detailed.all():
        pairs = crowd_candidates(pictures.thumbnails, members, start)
        pairs = pairs[~judge.can_tell(pairs).all(1)]
        candidates = _by_best_variant(pictures.thumbnails, pairs)
        yield pairs[_judge(pictures, candidates, np.ones(len(pictures), bool), strictness)]


def _judge(
    pictures: Fingerprints, found: _Candidates, in_crowd: npt.NDArray[np.bool_], strictness: Strictness
) -> npt.NDArray[np.bool_]:
    """Which candidates are the same picture."""
    verdict = _of_one_shape(pictures, found)
    maybe = np.flatnonzero(verdict)
    crowded = in_crowd[found.asked] & in_crowd[found.stored]
    edges = np.minimum(pictures.sizes[found.asked], pictures.sizes[found.stored])
    small = edges.min(1) < strictness.small_edge
    for at in range(0, len(maybe), _BATCH):
        part = maybe[at : at + _BATCH]
        compared = compare(pictures.thumbnails[found.asked[part]], pictures.thumbnails[found.stored[part]])
        verdict[part] = is_same(compared, small[part], crowded[part], strictness)
    return verdict


def _of_one_shape(pictures: Fingerprints, found: _Candidates) -> npt.NDArray[np.bool_]:
    """Which candidates have nearly the same aspect, once they are turned."""
    asked, stored = pictures.sizes[found.asked], pictures.sizes[found.stored]
    turned = _TRANSPOSED[found.variant % _TURNS]
    aspect = np.where(turned, asked[:, 1] / asked[:, 0], asked[:, 0] / asked[:, 1])
    change = aspect / (stored[:, 0] / stored[:, 1])
    return (change < _ASPECT) & (change > 1 / _ASPECT)
