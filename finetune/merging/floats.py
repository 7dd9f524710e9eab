"""A checkpoint's floats in numpy, which has no bfloat16: its values are had by their bits.

To import torch takes a core more than a second, in which a quarter of a small model could be merged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What numpy has in memory of a stored value, by the format's name of its dtype.
STORED: dict[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
}
# All bits of bfloat16 but the sign, and those of infinity, beyond which are those of NaN.
_VALUE, _INFINITE = 0x7FFF, 0x7F80
# Values that are compared at a time.
_COMPARED = 1 << 16


def widened(stored: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The values of what is `STORED`: bfloat16 as float32, others as they are."""
    return widen(stored, np.empty(stored.shape, np.float32)) if dtype == "BF16" else stored


def widen(bits: NDArray[np.uint16], into: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bfloat16's values, exactly."""
    # In two steps: numpy shifts and widens at once through a buffer, more slowly.
    wide = into.view(np.uint32)
    np.copyto(wide, bits)
    np.left_shift(wide, 16, out=wide)
    return into


def narrow(values: NDArray[np.float32], into: NDArray[np.uint16], room: NDArray[np.uint32]) -> None:
    """Round values to the nearest bfloat16, of two as near to the even one (IEEE 754, 4.3.1).

    A NaN remains one if it is one without the lower half of its bits, as those are that come of bfloat16 or
    of a processor. room: of the shape of `values`, used up.
    """
    bits = values.view(np.uint32)
    np.right_shift(bits, 16, out=room)
    np.bitwise_and(room, 1, out=room)
    np.add(room, 0x7FFF, out=room)
    np.add(room, bits, out=room)
    np.right_shift(room, 16, out=room)
    np.copyto(into, room, casting="unsafe")


def are_finite(bits: NDArray[np.uint16]) -> bool:
    """Whether values of bfloat16 are neither NaN nor infinite."""
    return int(np.bitwise_and(bits, _VALUE).max(initial=0)) < _INFINITE


def are_equal(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> bool:
    """Whether values of bfloat16 that are no NaN are: the two zeros too. Looks no further than it must."""
    one, other = one.reshape(-1), other.reshape(-1)
    return all(
        not np.any((left != right) & ((left | right) & _VALUE != 0))
        for left, right in (
            (one[at : at + _COMPARED], other[at : at + _COMPARED]) for at in range(0, len(one), _COMPARED)
        )
    )
