"""Copies within a crowd: among thousands of filled forms of one template, those that are the same form.

What the members of a crowd share, the printed template, tells nothing apart and fills their hashes. So each
member is laid over the crowd's first, the median of all is taken away, and what remains, the ink, is hashed:
signs of random projections (Charikar, "Similarity estimation techniques from rounding algorithms", 2002),
each against its own median. Different ink gives unrelated signs; the same ink turns few. Linear in the
members. Members with a detail (details.py) are laid over each other there: thumbnails of a dense page and of
the same page cropped differ by more than the ink of a field.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.similar.align import Pictures, align_either_way, lay_over, refine
from data_prep.similar.bands import near_pairs
from data_prep.similar.details import Details
from data_prep.similar.fine import BATCH as FINE_BATCH
from data_prep.similar.fine import lay_fine, pooled
from data_prep.similar.grey import FINE_SIDE
from data_prep.similar.hashes import orient
from data_prep.similar.thumbnail import SIDE, Thumbnails

Members = npt.NDArray[np.integer]


@dataclass(frozen=True)
class _Near:
    """When the ink of two members agrees: 64 * `words` signs, of which `distance` may differ, `word_distance`
    of the 64 in a word at most; and the bands in which a word is looked up."""

    words: int
    bands: int
    word_distance: int
    distance: int


# Measured on 40 dense pages (tests/data_prep/similar/pictures.py): copies differ in at most 8 of a word's 64
# signs (random ones: 32) and 37 of all 256 (random ones: 128, deviation 8), other pages in at least 14 and
# 93.
_COARSE = _Near(words=4, bands=4, word_distance=22, distance=84)
# Measured on 300 dense pages: cropped copies differ in at most 86 of 512, other pages in at least 170. With
# 86 differing, one of 40 bands of 12 signs agrees in 99 of 100.
_FINE = _Near(words=8, bands=5, word_distance=24, distance=144)
# Pairs that are judged of each member with a detail, the nearest: where the median is not a member's
# template, all forms of that one look alike.
_NEAREST = 4
# Grey levels that compression leaves, and parts of the template's slope that misplacement leaves: set, with
# the distances measured under them.
_GREY_NOISE = 3.0
_EDGE_NOISE = 0.1
# Members whose median is the template: spread over the crowd, odd so that the median is one of them.
_MEDIAN_OF = 257
_BATCH = 256


def crowd_candidates(thumbnails: Thumbnails, members: Members, start: int = 0) -> npt.NDArray[np.int64]:
    """Pairs of `members` (row numbers, ascending) whose ink agrees: int64 [pairs, 2], the later row second.

    Of each pair the later row is >= `start`. To be judged by same.py: these are candidates.
    """
    if len(members) < 2:
        return np.zeros((0, 2), np.int64)
    leader = thumbnails[members[0]]
    words = _ink_hashes(lambda some: _over_leader(thumbnails[some], leader), members, _COARSE)
    return _pairs(words, members, start, _COARSE)[0]


def fine_candidates(details: Details, members: Members, start: int = 0) -> npt.NDArray[np.int64]:
    """The same of members that have a detail, cropped copies among them; to be judged by crowd_judge.py."""
    if len(members) < 2:
        return np.zeros((0, 2), np.int64)
    leader = details.take(members[:1])
    words = _ink_hashes(lambda some: _over_fine(details, some, leader), members, _FINE)
    pairs, apart = _pairs(words, members, start, _FINE)
    order = np.lexsort((pairs[:, 0], apart, pairs[:, 1]))
    pairs = pairs[order]
    _, begins, which = np.unique(pairs[:, 1], return_index=True, return_inverse=True)
    return pairs[np.arange(len(pairs)) - begins[which] < _NEAREST]


def _pairs(
    words: npt.NDArray[np.uint64], members: Members, start: int, near: _Near
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of members whose signs agree, and in how many they do not."""
    later = int(np.searchsorted(members, start))
    found = [near_pairs(words[:, at], near.word_distance, near.bands, later) for at in range(near.words)]
    codes = np.unique(np.concatenate([one.asked * len(members) + one.stored for one in found]))
    second, first = codes // len(members), codes % len(members)
    apart = np.bitwise_count(words[first] ^ words[second]).sum(1, dtype=np.int64)
    close = apart <= near.distance
    return np.stack([members[first[close]], members[second[close]]], 1).astype(np.int64), apart[close]


def _ink_hashes(
    laid: Callable[[Members], npt.NDArray[np.float32]], members: Members, near: _Near
) -> npt.NDArray[np.uint64]:
    """The signs of each member's ink: uint64 [members, words]. `laid` gives members as they lie over the
    crowd's first, float32 [n, 4096]; one batch of them is in memory at a time."""
    pages = laid(members[np.linspace(0, len(members) - 1, min(len(members), _MEDIAN_OF)).astype(int)])
    batches = [pages] if len(pages) == len(members) else _laid(laid, members)
    template = np.median(pages, axis=0)
    misprints = _misprints(template)
    noise = _GREY_NOISE + _EDGE_NOISE * _slope(template)
    projections = _projections(near.words)

    def projected(pages: npt.NDArray) -> npt.NDArray:
        return _shrunk(_without(pages - template, misprints), noise) @ projections

    middle = np.median(projected(pages), axis=0)
    signs = [np.packbits(projected(batch) > middle, axis=1, bitorder="little") for batch in batches]
    return np.ascontiguousarray(np.concatenate(signs)).view("<u8").astype(np.uint64)


def _laid(
    laid: Callable[[Members], npt.NDArray[np.float32]], members: Members
) -> Iterator[npt.NDArray[np.float32]]:
    for at in range(0, len(members), _BATCH):
        yield laid(members[at : at + _BATCH])


@functools.cache
def _projections(words: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).choice([-1.0, 1.0], (SIDE * SIDE, 64 * words)).astype(np.float32)


def _misprints(template: npt.NDArray) -> npt.NDArray[np.float32]:
    """An orthonormal basis, [4096, 12], of what the template alone adds when it lies or is sampled a little
    off.

    Grey offset and gain; shift and stretch of either axis (the slopes, and the slopes times the place); blur
    and sharpening (the second slopes, and those of the second slopes).
    """
    picture = template.reshape(SIDE, SIDE)
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij")
    slope_y, slope_x = np.gradient(picture)
    bend_y, bend_x = np.gradient(slope_y, axis=0), np.gradient(slope_x, axis=1)
    again_y = np.gradient(np.gradient(bend_y, axis=0), axis=0)
    again_x = np.gradient(np.gradient(bend_x, axis=1), axis=1)
    columns = (
        np.ones_like(picture), picture, slope_y, slope_x, slope_y * y, slope_x * x, bend_y, bend_x,
        slope_y * y * y, slope_x * x * x, again_y, again_x,
    )  # fmt: skip
    basis, _ = np.linalg.qr(np.stack([column.reshape(-1) for column in columns], 1))
    return basis.astype(np.float32)


def _without(ink: npt.NDArray, basis: npt.NDArray[np.float32]) -> npt.NDArray:
    """The ink without its part in the span of the basis."""
    return ink - (ink @ basis) @ basis.T


def _slope(template: npt.NDArray) -> npt.NDArray:
    """The steepness of the template at each pixel, in grey levels a pixel: where small misplacements show."""
    picture = template.reshape(SIDE, SIDE)
    return np.hypot(*np.gradient(picture)).reshape(-1)


def _shrunk(ink: npt.NDArray, noise: npt.NDArray) -> npt.NDArray:
    """What of the ink exceeds the noise, in parts of it."""
    return (np.sign(ink) * np.maximum(np.abs(ink) - noise, 0) / noise).astype(np.float32)


def _over_fine(details: Details, members: Members, leader: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Each member's detail laid over the leader's, uint8 [1, 192, 192], and only then made as small as a
    thumbnail: float32 [n, 4096]."""
    pages = np.empty((len(members), SIDE * SIDE), np.float32)
    for at in range(0, len(members), FINE_BATCH):
        some = details.take(members[at : at + FINE_BATCH])
        target = np.broadcast_to(leader, some.shape)
        filled = _filled(*lay_fine(some, target), target.astype(np.float32))
        pages[at : at + len(some)] = pooled(filled, FINE_SIDE // SIDE).reshape(len(some), -1)
    return pages


def _over_leader(pictures: Thumbnails, leader: Thumbnails) -> npt.NDArray[np.float32]:
    """Each picture turned, aligned to the leader and resampled at its pixels: float32 [n, 4096]."""
    plain = np.broadcast_to(leader, pictures.shape)
    orientation, place = align_either_way(pictures, plain)
    upright, target = orient(pictures, orientation).astype(np.float32), plain.astype(np.float32)
    laid, inside = lay_over(upright, refine(upright, target, place))
    inside[:, [0, -1]] = 0
    inside[:, :, [0, -1]] = 0
    return _filled(laid, inside, target).reshape(len(pictures), -1)


def _filled(laid: Pictures, inside: Pictures, target: Pictures) -> Pictures:
    """`laid` with the mean that `target` has where both are, and `target` elsewhere."""
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    alike = laid + ((target - laid) * inside).sum((1, 2), keepdims=True) / count
    return np.where(inside > 0, alike, target)
