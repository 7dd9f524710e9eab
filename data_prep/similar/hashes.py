"""63-bit hashes of thumbnails: as they are, turned or mirrored, and as they would be after a crop.

A hash is the signs of the 8 x 8 lowest cosine coefficients without the mean (Zauner, "Implementation and
benchmarking of perceptual image hash functions", 2010, with the sign instead of the median, so that mirroring
and turning only flip and swap bits). A small crop changes a dozen of those bits. But the coefficients of a
cropped picture can be computed from the uncropped thumbnail, with cosines stretched over the part that is
left: each picture is stored under its plain hash and looked up under those of 25 crops in 8 orientations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.similar.thumbnail import SIDE, Thumbnails

BITS = 63
_FREQUENCIES = 8
# Grey levels: a coefficient below is the rounding of an even picture, not a sign.
_ZERO = 0.02

Hashes = npt.NDArray[np.uint64]

# Part of an axis taken off its low and its high end. 5% a side is the crop to be found; the grid's steps
# leave at most 2 points between a crop and its nearest lookup, which turns at most 9 of 63 bits (measured).
EDGES: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.03, 0.03), (0.05, 0.05), (0.0, 0.04), (0.04, 0.0))
CROPS: tuple[tuple[int, int], ...] = tuple((y, x) for y in range(len(EDGES)) for x in range(len(EDGES)))

# Transpose first, then flip rows, then flip columns: the eight symmetries of a square.
ORIENTATIONS: tuple[tuple[bool, bool, bool], ...] = tuple(
    (transpose, rows, columns)
    for transpose in (False, True)
    for rows in (False, True)
    for columns in (False, True)
)
VARIANTS = len(CROPS) * len(ORIENTATIONS)


def orient(thumbnails: npt.NDArray, orientation: npt.NDArray) -> npt.NDArray:
    """Thumbnails [n, 64, 64], each turned into its orientation (int [n], an index of ORIENTATIONS)."""
    turned = np.empty_like(thumbnails)
    for number, (transpose, rows, columns) in enumerate(ORIENTATIONS):
        chosen = orientation == number
        part = thumbnails[chosen]
        part = part.transpose(0, 2, 1) if transpose else part
        turned[chosen] = part[:, :: -1 if rows else 1, :: -1 if columns else 1]
    return turned


def _cosines(low: float, high: float) -> npt.NDArray[np.float32]:
    """Integrals of cos(pi k x) over each cell of the axis, x running over what a crop leaves: [8, 64]."""
    edges = np.clip((np.arange(SIDE + 1) / SIDE - low) / (1 - low - high), 0, 1)
    k = np.arange(_FREQUENCIES)[:, None]
    integral = np.where(k == 0, edges, np.sin(np.pi * k * edges) / (np.pi * np.maximum(k, 1)))
    return np.asarray(np.diff(integral, axis=1), np.float32)


_ALL_COSINES = np.concatenate([_cosines(*edges) for edges in EDGES])
_PLACES = np.array([(u, v) for u in range(_FREQUENCIES) for v in range(_FREQUENCIES)][1:])
# Shuffled once, so that every band of the index holds low and high frequencies of both axes.
_PLACES = _PLACES[np.random.default_rng(0).permutation(BITS)]


def hashes(thumbnails: Thumbnails) -> Hashes:
    """The plain hash of each thumbnail of uint8 [n, 64, 64], as uint64 [n] with the top bit zero."""
    plain = _cosines(0, 0)
    return _signs(plain @ thumbnails.astype(np.float32) @ plain.T)


def variants(thumbnails: Thumbnails) -> Hashes:
    """The hashes to look a picture up under: uint64 [n, 200].

    Column `8 * crop + orientation` is the hash the picture would have after CROPS[crop] and then
    ORIENTATIONS[orientation]; column 0 is the plain hash.
    """
    n, axis = len(thumbnails), len(EDGES)
    both = _ALL_COSINES @ thumbnails.astype(np.float32) @ _ALL_COSINES.T
    blocks = both.reshape(n, axis, _FREQUENCIES, axis, _FREQUENCIES)
    odd = np.where(np.arange(_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    found = np.empty((n, VARIANTS), np.uint64)
    for number, (y, x) in enumerate(CROPS):
        block = blocks[:, y, :, x]
        for column, (transpose, rows, columns) in enumerate(ORIENTATIONS):
            turned = block.transpose(0, 2, 1) if transpose else block
            turned = turned * odd[:, None] if rows else turned
            turned = turned * odd if columns else turned
            found[:, number * len(ORIENTATIONS) + column] = _signs(turned)
    return found


def distances(asked: Thumbnails, stored: Thumbnails) -> npt.NDArray[np.uint8]:
    """How many bits each variant of `asked` [n, 64, 64] is from the hash of its `stored`, [n, 200]."""
    return np.bitwise_count(variants(asked) ^ hashes(stored)[:, None])


def best_variant(
    asked: Thumbnails, stored: Thumbnails
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The variant that makes each asked thumbnail most like its stored one, and its distance, both [n]."""
    apart = distances(asked, stored)
    which = apart.argmin(1)
    return which, apart[np.arange(len(which)), which]


def _signs(coefficients: npt.NDArray[np.floating]) -> Hashes:
    bits = coefficients[:, _PLACES[:, 0], _PLACES[:, 1]] > _ZERO
    padded = np.zeros((len(bits), 64), bool)
    padded[:, :BITS] = bits
    packed = np.ascontiguousarray(np.packbits(padded, axis=1, bitorder="little"))
    return packed.view("<u8")[:, 0].astype(np.uint64)
