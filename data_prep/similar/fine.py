"""How much two details differ, cropped or not; nothing has to be known of a template that they share.

One is laid over the other, and the worst 9 x 9 window decides: what remains there, in parts of how steep the
two are. Sampling at other points, as after a crop, leaves more where grey changes quickly, and more nowhere
else; other ink leaves much in any place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_prep.similar.align import Pictures, Places, align_either_way, refine
from data_prep.similar.details import Fine
from data_prep.similar.grey import FINE_SIDE, SIDE
from data_prep.similar.hashes import orient
from data_prep.similar.same import window_means

# Pixels on each side of a window's middle: 9 x 9 are a line of an A4 page.
_WINDOW = 4
# Grey levels that compression leaves, and parts of the slope (grey levels a pixel) that resampling leaves:
# set, with the differences measured under them.
_NOISE = 6.0
_SLOPE = 0.5
# A window of which less lies in both pictures counts as if so much did.
_LEAST_INSIDE = 0.3
# Pixels of the first beyond its rim that count as missing: they were resampled from one side only.
_RIM = 1.5
# The pyramid: means over so many pixels, and Gauss-Newton steps there. Lines are apart at each.
_PYRAMID = ((4, 3), (2, 2), (1, 1))
# 100 MB while they are laid.
BATCH = 32


def differences(asked: Fine, stored: Fine) -> npt.NDArray[np.float32]:
    """How much the worst window of each pair of uint8 [n, 192, 192] differs (crowd_judge.py): float32 [n]."""
    parts = [_differ(asked[at : at + BATCH], stored[at : at + BATCH]) for at in range(0, len(asked), BATCH)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def lay_fine(asked: Fine, stored: Fine) -> tuple[Pictures, Pictures]:
    """`asked` turned, aligned to `stored` and resampled at its pixels, with its mean and contrast; and 1
    where both have a pixel, else 0. Both float32 [n, 192, 192]."""
    orientation, place = align_either_way(_small(asked), _small(stored))
    first, second = orient(asked, orientation).astype(np.float32), stored.astype(np.float32)
    for width, steps in _PYRAMID:
        place = refine(pooled(first, width), pooled(second, width), place, steps)
    inside = _inside(place)
    return _like(_resampled(first, place), second, inside), inside


def pooled(pictures: npt.NDArray, width: int) -> Pictures:
    """Means over `width` x `width` pixels."""
    n, side = len(pictures), pictures.shape[1] // width
    return pictures.astype(np.float32).reshape(n, side, width, side, width).mean((2, 4))


def _differ(asked: Fine, stored: Fine) -> npt.NDArray[np.float32]:
    laid, inside = lay_fine(asked, stored)
    second = stored.astype(np.float32)
    share = np.maximum(window_means(inside, _WINDOW), _LEAST_INSIDE)
    rest = window_means((laid - second) ** 2 * inside, _WINDOW) / share
    steepness = (_steepness(laid) + _steepness(second)) * inside * np.float32(0.5)
    steep = window_means(steepness, _WINDOW) / share
    return np.sqrt(np.maximum(rest, 0) / (_NOISE**2 + _SLOPE**2 * np.maximum(steep, 0))).max((1, 2))


def _small(fine: Fine) -> npt.NDArray[np.uint8]:
    return (pooled(fine, FINE_SIDE // SIDE) + 0.5).astype(np.uint8)


def _resampled(first: Pictures, place: Places) -> Pictures:
    laid = np.empty_like(first)
    for at, (scale_y, shift_y, scale_x, shift_x) in enumerate(place.astype(float).tolist()):
        left = (shift_x - scale_x / 2 + 0.5) * FINE_SIDE
        top = (shift_y - scale_y / 2 + 0.5) * FINE_SIDE
        picture = Image.fromarray(first[at])
        size, way = (FINE_SIDE, FINE_SIDE), Image.Resampling.BICUBIC
        moved = picture.transform(size, Image.Transform.AFFINE, (scale_x, 0, left, 0, scale_y, top), way)
        laid[at] = np.asarray(moved)
    return laid


def _inside(place: Places) -> Pictures:
    v = (np.arange(FINE_SIDE, dtype=np.float32) + 0.5) / FINE_SIDE - 0.5
    rim = _RIM / FINE_SIDE
    rows, columns = (place[:, axis, None] * v + place[:, axis + 1, None] + 0.5 for axis in (0, 2))
    both = [(rim < each) & (each < 1 - rim) for each in (rows, columns)]
    return (both[0][:, :, None] & both[1][:, None, :]).astype(np.float32)


def _like(laid: Pictures, target: Pictures, inside: Pictures) -> Pictures:
    """`laid` with the mean and the contrast that `target` has where both are."""
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    middle, other = [(each * inside).sum((1, 2), keepdims=True) / count for each in (laid, target)]
    energy = ((laid - middle) ** 2 * inside).sum((1, 2), keepdims=True)
    gain = ((laid - middle) * (target - other) * inside).sum((1, 2), keepdims=True) / np.maximum(energy, 1)
    return (laid - middle) * gain + other


def _steepness(pictures: Pictures) -> Pictures:
    """The square of the slope at each pixel."""
    down, across = np.gradient(pictures, axis=(1, 2))
    return (down * down + across * across).astype(np.float32)
