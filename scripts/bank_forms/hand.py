"""Strokes as a hand makes them: each use of a glyph is turned, sheared, sized, moved and bent a little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bank_forms.layout import CELL

# A glyph's digit is 20 of its 28 pixels high, as in MNIST; 1.3 cell pixels each make it fill a 32-pixel cell.
ZOOM = 1.3


@dataclass(frozen=True)
class Wobble:
    """How far two drawings of one glyph differ: bounds of uniform draws.

    `turn` and `shear` in radians; `size` a fraction of the glyph; `move` and `bend` in pixels of the cell;
    `weight` the exponent's spread (in log2) that thickens or thins the stroke.
    """

    turn: float = 0.06
    shear: float = 0.10
    size: float = 0.05
    move: float = 0.6
    bend: float = 1.0
    weight: float = 0.35


def draw_again(glyphs: np.ndarray, wobble: Wobble, rng: np.random.Generator) -> np.ndarray:
    """Draw each glyph once more, none exactly as before.

    `glyphs` float32 [n, side, side], 0 for paper and 1 for full ink. Returns float32
    [n, CELL, CELL] in the same range.
    """
    count, side, _ = glyphs.shape

    def uniform(bound: float, *shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, (count, *shape)).astype(np.float32)

    axis = np.arange(CELL, dtype=np.float32) - (CELL - 1) / 2
    y, x = (grid[None] for grid in np.meshgrid(axis, axis, indexing="ij"))
    turn = uniform(wobble.turn, 1, 1)
    shear = uniform(wobble.shear, 1, 1)
    scale_x = 1 / (ZOOM * (1 + uniform(wobble.size, 1, 1)))
    scale_y = 1 / (ZOOM * (1 + uniform(wobble.size, 1, 1)))
    x = x + uniform(wobble.move, 1, 1) + _bend(wobble.bend, uniform)
    y = y + uniform(wobble.move, 1, 1) + _bend(wobble.bend, uniform)
    x = x + shear * y
    source_x = (np.cos(turn) * x + np.sin(turn) * y) * scale_x + (side - 1) / 2
    source_y = (np.cos(turn) * y - np.sin(turn) * x) * scale_y + (side - 1) / 2
    drawn = _sample(glyphs, source_x, source_y)
    return drawn ** np.exp2(uniform(wobble.weight, 1, 1))


def _bend(bound: float, uniform: Callable[..., np.ndarray]) -> np.ndarray:
    """A smooth random displacement [n, CELL, CELL]: 4 x 4 random knots, interpolated linearly."""
    knots = uniform(bound, 4, 4)
    where = np.linspace(0, 3, CELL, dtype=np.float32)
    low = np.minimum(where.astype(int), 2)
    part = where - low
    blend = np.zeros((CELL, 4), np.float32)
    blend[np.arange(CELL), low] = 1 - part
    blend[np.arange(CELL), low + 1] = part
    return np.einsum("ak,nkl,bl->nab", blend, knots, blend, optimize=True)


def _sample(glyphs: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of each glyph at (x, y) [n, CELL, CELL], paper outside the glyph."""
    padded = np.pad(glyphs, ((0, 0), (1, 2), (1, 2)))
    limit = glyphs.shape[1]
    x = np.clip(x + 1, 0, limit + 1)
    y = np.clip(y + 1, 0, limit + 1)
    left, top = x.astype(int), y.astype(int)
    right_part, low_part = x - left, y - top
    n = np.arange(len(glyphs))[:, None, None]
    upper = padded[n, top, left] * (1 - right_part) + padded[n, top, left + 1] * right_part
    lower = padded[n, top + 1, left] * (1 - right_part) + padded[n, top + 1, left + 1] * right_part
    return (upper * (1 - low_part) + lower * low_part).astype(np.float32)
