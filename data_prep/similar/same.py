"""Whether two thumbnails show the same picture, decided by the worst place of the two laid over each other.

Two filled forms of one template agree in most of their pixels; what tells them apart is that somewhere the
ink differs. So a mean over the picture does not decide, the worst 7 x 7 window does: what remains after
alignment, in parts of the contrast that the window itself has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.similar.align import Pictures, align, lay_over
from data_prep.similar.thumbnail import Thumbnails

# Pixels on each side of a window's middle: 7 x 7, about the height of a line of an A4 page at 64 pixels.
_WINDOW = 3
# Grey levels: what compression leaves in a window without contrast.
_NOISE = 4.0
# A window of which less lies in both pictures counts as if so much did: few pixels at the rim decide nothing.
_LEAST_INSIDE = 0.3
_BATCH = 256


@dataclass(frozen=True)
class Strictness:
    """The largest residual of a window, in parts of its contrast, at which two pictures are the same one."""

    # Measured on filled A4 pages of one template: copies reach 0.28, pages that differ in one line begin at
    # 0.45.
    plain: float = 0.38
    # After a crop the thumbnails sampled other points: copies reach 0.6. Not used within a crowd of one
    # template, whose members differ by their framing too: pages that differ in one line begin at 0.45 there
    # as well.
    cropped: float = 0.62
    # Pictures with an edge below 256 pixels lose more to compression: copies reach 0.68. Their ink is larger:
    # other bank forms begin at 2.3.
    small: float = 0.75
    small_edge: int = 256
    # Correlation of the two pictures as a whole.
    correlation: float = 0.985
    # Parts of an edge: a place nearer than this to "not cropped" is not a crop.
    crop: float = 0.006


STRICTNESS = Strictness()


@dataclass(frozen=True)
class Comparison:
    """Of each pair: residual of the worst window, correlation, and crop in parts of an edge."""

    residual: npt.NDArray[np.float32]
    correlation: npt.NDArray[np.float32]
    crop: npt.NDArray[np.float32]


def compare(asked: Thumbnails, stored: Thumbnails) -> Comparison:
    """Align and compare thumbnails uint8 [n, 64, 64] pairwise; the asked one is turned and may be cropped."""
    parts = [
        _compare(asked[at : at + _BATCH], stored[at : at + _BATCH]) for at in range(0, len(asked), _BATCH)
    ]
    if not parts:
        empty = np.zeros(0, np.float32)
        return Comparison(empty, empty, empty)
    return Comparison(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def is_same(
    found: Comparison, small: npt.NDArray, crowded: npt.NDArray, strictness: Strictness = STRICTNESS
) -> npt.NDArray[np.bool_]:
    """The verdict on each pair: bool [n].

    `small` bool [n] tells that one of its pictures has an edge below small_edge, `crowded` bool [n] that both
    belong to a crowd.
    """
    limit = np.where((found.crop < strictness.crop) | crowded, strictness.plain, strictness.cropped)
    limit = np.where(small, strictness.small, limit)
    return (found.residual < limit) & (found.correlation > strictness.correlation)


def _compare(asked: Thumbnails, stored: Thumbnails) -> tuple[npt.NDArray, ...]:
    left, _, place = align(asked, stored)
    right = stored.astype(np.float32)
    laid, inside = lay_over(left, place)
    # The outermost pixels were resampled from one side only.
    inside[:, [0, -1]] = 0
    inside[:, :, [0, -1]] = 0
    laid, right = _blur(laid), _blur(right)
    count = inside.sum((1, 2))
    laid = (laid - ((laid * inside).sum((1, 2)) / count)[:, None, None]) * inside
    right = (right - ((right * inside).sum((1, 2)) / count)[:, None, None]) * inside
    energy, other = (laid * laid).sum((1, 2)), (right * right).sum((1, 2))
    floor = _NOISE**2 * count
    correlation = ((laid * right).sum((1, 2)) + floor) / np.sqrt((energy + floor) * (other + floor))
    right = right * np.sqrt((energy + floor) / (other + floor))[:, None, None]
    share = np.maximum(window_means(inside, _WINDOW), _LEAST_INSIDE)
    rest = np.maximum(window_means((laid - right) ** 2, _WINDOW), 0) / share
    spread = [
        window_means(one * one, _WINDOW) / share - (window_means(one, _WINDOW) / share) ** 2
        for one in (laid, right)
    ]
    contrast = np.maximum((spread[0] + spread[1]) / 2, 0) + _NOISE**2
    crop = np.maximum(
        np.abs(1 - place[:, 0]) / 2 + np.abs(place[:, 1]), np.abs(1 - place[:, 2]) / 2 + np.abs(place[:, 3])
    )
    return np.sqrt(rest / contrast).max((1, 2)), correlation, crop


def _blur(pictures: Pictures) -> Pictures:
    padded = np.pad(pictures, ((0, 0), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:, :-2] + 2 * pictures + padded[:, 2:]) / 4
    padded = np.pad(rows, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return ((padded[:, :, :-2] + 2 * rows + padded[:, :, 2:]) / 4).astype(np.float32)


def window_means(pictures: Pictures, reach: int) -> Pictures:
    """Means over the pixels up to `reach` around each, zero outside the picture."""
    width = 2 * reach + 1
    padded = np.pad(pictures, ((0, 0), (reach + 1, reach), (reach + 1, reach)))
    sums = padded.cumsum(1, dtype=np.float64).cumsum(2)
    block = (
        sums[:, width:, width:]
        - sums[:, :-width, width:]
        - sums[:, width:, :-width]
        + sums[:, :-width, :-width]
    )
    return (block / width**2).astype(np.float32)
