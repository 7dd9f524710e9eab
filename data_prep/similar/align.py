"""Laying one thumbnail over another: scale and shift of each axis, found by Gauss-Newton.

`place` is float32 [n, 4]: (scale y, shift y, scale x, shift x). A point at v of the second picture, measured
from its middle in parts of its edge, lies at `scale * v + shift` of the first, from its middle. Method: Lucas
and Kanade, "An iterative image registration technique" (1981), with gain and offset of the grey values solved
along.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data_prep.similar.hashes import CROPS, EDGES, ORIENTATIONS, distances, orient
from data_prep.similar.thumbnail import Thumbnails

Pictures = npt.NDArray[np.float32]
Places = npt.NDArray[np.float32]

# First over 2 x 2 pixels from each start, then over single pixels from the best. Measured on 100 cropped
# photographs (tests/data_prep/similar): with half and with twice of each all are found too; with a damping of
# 0.01 five are missed. The damping is that of Levenberg and Marquardt, in parts of the diagonal.
_COARSE_STEPS = 4
_FINE_STEPS = 5
_STARTS = 4
_DAMPING = 1e-4
# Beyond these a step has left the crops that are searched for (5% an edge, and room for error).
_MAX_STEP = 0.05
_SCALES = (0.87, 1.15)
_SHIFTS = (-0.07, 0.07)


# Of each orientation, the one that turns it back.
_INVERSE = np.array(
    [
        ORIENTATIONS.index((transpose, columns, rows) if transpose else (transpose, rows, columns))
        for transpose, rows, columns in ORIENTATIONS
    ]
)


def crop_places(crop: npt.NDArray) -> Places:
    """Where the second picture lies on the first when it is the first after CROPS[crop]; int [n]."""
    table = [
        [value for axis in pair for value in (1 - sum(EDGES[axis]), (EDGES[axis][0] - EDGES[axis][1]) / 2)]
        for pair in CROPS
    ]
    return np.array(table, np.float32)[crop]


def orient_places(place: Places, orientation: npt.NDArray) -> Places:
    """The places on pictures that were turned by hashes.orient after the places were found; int [n]."""
    transpose, rows, columns = np.array(ORIENTATIONS)[orientation].T
    turned = np.where(transpose[:, None], place[:, [2, 3, 0, 1]], place)
    turned[:, 1] *= np.where(rows, -1, 1)
    turned[:, 3] *= np.where(columns, -1, 1)
    return turned.astype(np.float32)


def align(asked: Thumbnails, stored: Thumbnails) -> tuple[Pictures, npt.NDArray[np.int64], Places]:
    """Turn each `asked` [n, 64, 64] as its `stored` lies and find the place of the one on the other.

    Returns the turned pictures (float32), their orientations (int64 [n]) and the places. Starts from the
    variants of `asked` whose hashes are nearest to `stored`: pages of even lines have many places that fit
    nearly.
    """
    starts = np.argsort(distances(asked, stored), axis=1, kind="stable")[:, :_STARTS]
    small = _halved(stored)
    best = np.full(len(asked), -np.inf)
    orientation, place = np.zeros(len(asked), np.int64), np.zeros((len(asked), 4), np.float32)
    for start in starts.T:
        turn = start % len(ORIENTATIONS)
        turned = _halved(orient(asked, turn))
        found = orient_places(crop_places(start // len(ORIENTATIONS)), turn)
        for _ in range(_COARSE_STEPS):
            found = _step(turned, small, found)
        fit = _fit(turned, small, found)
        better = fit > best
        best = np.where(better, fit, best)
        orientation = np.where(better, turn, orientation)
        place = np.where(better[:, None], found, place)
    upright = orient(asked, orientation).astype(np.float32)
    return upright, orientation, refine(upright, stored.astype(np.float32), place)


def align_either_way(asked: Thumbnails, stored: Thumbnails) -> tuple[npt.NDArray[np.int64], Places]:
    """The orientations and places of `align`, whichever of the two is cropped."""
    _, orientation, place = align(asked, stored)
    # Where the stored one is cropped, it is found on the other rather than the other way round.
    swap = np.flatnonzero(distances(stored, asked).min(1) < distances(asked, stored).min(1))
    if len(swap):
        _, turn, found = align(stored[swap], asked[swap])
        place[swap], orientation[swap] = inverted(found, turn)
    return orientation, place


def refine(first: Pictures, second: Pictures, place: Places, steps: int = _FINE_STEPS) -> Places:
    """The place of each `second` on its `first`, from one that is right to about a pixel."""
    for _ in range(steps):
        place = _step(first, second, place)
    return place


def inverted(place: Places, orientation: npt.NDArray) -> tuple[Places, npt.NDArray[np.int64]]:
    """The place of the first picture on the second, and how the second is to be turned for it."""
    back = _INVERSE[orientation]
    scale, shift = place[:, ::2], place[:, 1::2]
    return orient_places(np.stack([1 / scale, -shift / scale], 2).reshape(len(place), 4), back), back


def _fit(first: Pictures, second: Pictures, place: Places) -> npt.NDArray:
    """Correlation of the two where both are, [n]."""
    laid, inside = lay_over(first, place)
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    left = (laid - (laid * inside).sum((1, 2), keepdims=True) / count) * inside
    right = (second - (second * inside).sum((1, 2), keepdims=True) / count) * inside
    energies = (left * left).sum((1, 2)) * (right * right).sum((1, 2))
    return (left * right).sum((1, 2)) / np.sqrt(energies + 1)


def _halved(thumbnails: Thumbnails) -> Pictures:
    """Means over 2 x 2 pixels."""
    n, side = len(thumbnails), thumbnails.shape[1] // 2
    return thumbnails.astype(np.float32).reshape(n, side, 2, side, 2).mean((2, 4))


def lay_over(first: Pictures, place: Places) -> tuple[Pictures, Pictures]:
    """`first` resampled (cubic) at the pixels of the second, and 1 where both have a pixel, else 0."""
    side = first.shape[1]
    rows, inside_rows, _ = _weights(place[:, 0], place[:, 1], side, _cubic)
    columns, inside_columns, _ = _weights(place[:, 2], place[:, 3], side, _cubic)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    return rows @ first @ columns.transpose(0, 2, 1), inside.astype(np.float32)


def _step(first: Pictures, second: Pictures, place: Places) -> Places:
    side = first.shape[1]
    rows, inside_rows, v = _weights(place[:, 0], place[:, 1], side, _linear)
    columns, inside_columns, _ = _weights(place[:, 2], place[:, 3], side, _linear)
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :]).astype(np.float32)
    laid = rows @ first @ columns.transpose(0, 2, 1)
    slope_y = np.gradient(laid, 1 / side, axis=1)
    slope_x = np.gradient(laid, 1 / side, axis=2)
    columns_of = (slope_y * v[:, None], slope_y, slope_x * v, slope_x, -second, np.full_like(laid, -1))
    jacobian = (np.stack(columns_of, 1) * inside[:, None]).reshape(len(first), 6, -1)
    residual = -(laid * inside).reshape(len(first), -1, 1)
    normal = (jacobian @ jacobian.transpose(0, 2, 1)).astype(np.float64)
    diagonal = np.arange(6)
    # A picture without slopes (a blank page) has no place to find: the constant keeps it where it is.
    normal[:, diagonal, diagonal] = normal[:, diagonal, diagonal] * (1 + _DAMPING) + side
    change = np.linalg.solve(normal, (jacobian @ residual).astype(np.float64))[:, :4, 0]
    moved = place + np.clip(change, -_MAX_STEP, _MAX_STEP)
    moved[:, ::2] = np.clip(moved[:, ::2], *_SCALES)
    moved[:, 1::2] = np.clip(moved[:, 1::2], *_SHIFTS)
    return moved.astype(np.float32)


def _weights(
    scale: npt.NDArray, shift: npt.NDArray, side: int, kernel: Callable[[npt.NDArray], npt.NDArray]
) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    v = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    where = scale[:, None] * v + shift[:, None] + 0.5
    pixel = np.clip(where * side - 0.5, 0, side - 1)
    return kernel(pixel[:, :, None] - np.arange(side, dtype=np.float32)), (where >= 0) & (where <= 1), v


def _linear(distance: npt.NDArray) -> npt.NDArray:
    return np.maximum(0, 1 - np.abs(distance)).astype(np.float32)


def _cubic(distance: npt.NDArray) -> npt.NDArray:
    """Keys' cubic convolution with a = -1/2 (IEEE Trans. ASSP 29, 1981)."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0)).astype(np.float32)
