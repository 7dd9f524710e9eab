"""Copies within a crowd: among thousands of filled forms of one template, those that are the same form.

What the members of a crowd share, the printed template, tells nothing apart and fills their hashes. So each
member is laid over the crowd's first, the median of all is taken away, and what remains, the ink, is hashed:
256 signs of random projections (Charikar, "Similarity estimation techniques from rounding algorithms", 2002),
each against its own median. Different ink gives unrelated signs; the same ink turns few. Linear in the
members.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.similar.align import Pictures, align, inverted, lay_over, refine
from data_prep.similar.bands import near_pairs
from data_prep.similar.hashes import best_variant, orient
from data_prep.similar.thumbnail import SIDE, Thumbnails

_WORDS = 4
_PROJECTIONS = np.random.default_rng(1).choice([-1.0, 1.0], (SIDE * SIDE, 64 * _WORDS)).astype(np.float32)
# Of the 64 signs in one word that may differ (random ones: 32), and of all 256 (random ones: 128, deviation
# 8). Measured on 40 dense pages (tests/data_prep/similar/pictures.py): copies differ in at most 8 and 37,
# other pages in at least 14 and 93.
_WORD_DISTANCE = 22
_DISTANCE = 84
# Grey levels that compression leaves, and parts of the template's slope that misplacement leaves: set, with
# the distances measured under them.
_GREY_NOISE = 3.0
_EDGE_NOISE = 0.1
# Members whose median is the template: spread over the crowd, odd so that the median is one of them.
_MEDIAN_OF = 257
_BATCH = 256


def crowd_candidates(thumbnails: Thumbnails, members: npt.NDArray[np.integer], start: int = 0) -> npt.NDArray:
    """Pairs of `members` (row numbers, ascending) whose ink agrees: int64 [pairs, 2], the later row second.

    Of each pair the later row is >= `start`. To be judged by same.py: these are candidates.
    """
    if len(members) < 2:
        return np.zeros((0, 2), np.int64)
    words = _ink_hashes(thumbnails, members)
    later = int(np.searchsorted(members, start))
    pairs = [near_pairs(words[:, word], _WORD_DISTANCE, start=later) for word in range(_WORDS)]
    codes = np.unique(np.concatenate([one.asked * len(members) + one.stored for one in pairs]))
    second, first = codes // len(members), codes % len(members)
    apart = np.bitwise_count(words[first] ^ words[second]).sum(1)
    near = apart <= _DISTANCE
    return np.stack([members[first[near]], members[second[near]]], 1).astype(np.int64)


def _ink_hashes(thumbnails: Thumbnails, members: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """256 signs of each member's ink: uint64 [members, 4]. One batch of pictures is in memory at a time."""
    leader = thumbnails[members[0]]
    sample = members[np.linspace(0, len(members) - 1, min(len(members), _MEDIAN_OF)).astype(int)]
    pages = _over_leader(thumbnails[sample], leader)
    template = np.median(pages, axis=0)
    misprints = _misprints(template)
    noise = _GREY_NOISE + _EDGE_NOISE * _slope(template)

    def projected(pages: npt.NDArray) -> npt.NDArray:
        return _shrunk(_without(pages - template, misprints), noise) @ _PROJECTIONS

    middle = np.median(projected(pages), axis=0)
    words = np.empty((len(members), _WORDS), np.uint64)
    for at in range(0, len(members), _BATCH):
        bits = projected(_over_leader(thumbnails[members[at : at + _BATCH]], leader)) > middle
        packed = np.ascontiguousarray(np.packbits(bits, axis=1, bitorder="little"))
        words[at : at + _BATCH] = packed.view("<u8")
    return words


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


def _over_leader(pictures: Thumbnails, leader: Thumbnails) -> npt.NDArray[np.float32]:
    """Each picture turned, aligned to the leader and resampled at its pixels: float32 [n, 4096]."""
    plain = np.broadcast_to(leader, pictures.shape)
    upright, orientation, place = align(pictures, plain)
    # Where the leader is the one that is cropped, the picture is found on it the other way round.
    _, forward = best_variant(pictures, plain)
    _, backward = best_variant(plain, pictures)
    swap = np.flatnonzero(backward < forward)
    if len(swap):
        _, turn, found = align(plain[swap], pictures[swap])
        place[swap], orientation[swap] = inverted(found, turn)
        upright[swap] = orient(pictures[swap], orientation[swap])
    target = plain.astype(np.float32)
    laid, inside = lay_over(upright, refine(upright, target, place))
    inside[:, [0, -1]] = 0
    inside[:, :, [0, -1]] = 0
    filled = np.where(inside > 0, _like(laid, target, inside), target)
    return filled.reshape(len(pictures), -1)


def _like(laid: Pictures, target: Pictures, inside: Pictures) -> Pictures:
    """`laid` with the mean that `target` has where both are."""
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    return laid + ((target - laid) * inside).sum((1, 2), keepdims=True) / count
