"""Rows of a matrix that the proof holds at a time."""

from __future__ import annotations

# Elements: 1 MiB in float32, of which what computes with several adapters has about a dozen at once.
_BLOCK = 1 << 18


def row_blocks(rows: int, width: int) -> list[tuple[int, int]]:
    """Rows `[first, end)` of a matrix of so many rows of `width` elements, from the first to the last."""
    at_once = max(_BLOCK // max(width, 1), 1)
    return [(first, min(first + at_once, rows)) for first in range(0, rows, at_once)]
