"""Whether a row fits the longest that is taught; if not, the image sizes at which it would: never a cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lensmith.images import MAX_ASPECT
from lensmith.tokens import Grid

Size = tuple[int, int]
_HALVINGS = 40
# Below it nobody can read what an image shows; decoding refuses such images too (`ImageLimits.min_edge`).
_LEAST_EDGE = 8


def fit(sizes: Sequence[Size], text_tokens: int, grid: Grid, max_length: int) -> tuple[Size, ...] | None:
    """At which sizes of its images a row has at most `max_length` tokens: their own, or the largest reduced.

    Sizes are (width, height) in pixels. Reduced are the images above one area, to that area, the largest that
    fits; shapes stay, smaller images keep their size. `text_tokens` are all that are no image tokens, the
    answer's included. None where no size fits: too much text, or the pixel budget's lower bound enlarges the
    images again.
    """
    if _tokens(sizes, text_tokens, grid) <= max_length:
        return tuple(sizes)
    best: tuple[Size, ...] | None = None
    low, high = 0.0, math.log2(max((width * height for width, height in sizes), default=1))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reduced = tuple(_reduced(size, 2.0**middle) for size in sizes)
        if _tokens(reduced, text_tokens, grid) <= max_length:
            best, low = reduced, middle
        else:
            high = middle
    return best if best is not None and all(_usable(*size) for size in best) else None


def _tokens(sizes: Sequence[Size], text_tokens: int, grid: Grid) -> int:
    return text_tokens + sum(grid.tokens(width, height) for width, height in sizes)


def _reduced(size: Size, area: float) -> Size:
    width, height = size
    scale = min(1.0, math.sqrt(area / (width * height)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _usable(width: int, height: int) -> bool:
    return min(width, height) >= _LEAST_EDGE and max(width, height) <= MAX_ASPECT * min(width, height)
