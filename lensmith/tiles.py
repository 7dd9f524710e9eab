"""Image tokens of processors that choose among arrangements of tiles by an image's shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class TileGrid:
    """DeepSeek-OCR-2: the whole image at one size, beside it tiles of a larger one, and a separator.

    As its processor's settings name them; `size`, `tile_size` and `token_edge` in pixels, the last being
    what one token covers along an edge (patch size times downsampling).
    """

    size: int
    tile_size: int
    token_edge: int
    min_patches: int
    max_patches: int
    # Vision patches behind a token: the first encoder's, four by four of them a token.
    patches_a_token: int = 16

    def count(self, widths: NDArray[np.int64], heights: NDArray[np.int64]) -> Counts:
        """Image tokens of images of these sizes in pixels, both [images]: int64 [images].

        transformers' `get_optimal_tiled_canvas` and `replace_image_token` in deepseek_ocr2.
        """
        shape, area = widths / heights, widths * heights
        best = np.full(shape.shape, np.inf)
        tiles = np.ones(shape.shape, np.int64)
        for columns, rows in self._arrangements():
            difference = np.abs(shape - columns / rows)
            larger = area > 0.5 * self.tile_size * self.tile_size * columns * rows
            taken = (difference < best) | ((difference == best) & larger)
            tiles = np.where(taken, columns * rows, tiles)
            best = np.minimum(best, difference)
        cut = np.maximum(widths, heights) > self.tile_size
        return self._whole + 1 + np.where(cut, tiles * self._of(self.tile_size), 0)

    def tokens(self, width: int, height: int) -> int:
        """Image tokens of one image of this size in pixels."""
        return int(self.count(np.array([width]), np.array([height]))[0])

    @property
    def most_tokens(self) -> int:
        """Tokens of the costliest image."""
        return self._whole + 1 + self.max_patches * self._of(self.tile_size)

    @property
    def _whole(self) -> int:
        return self._of(self.size)

    def _of(self, edge: int) -> int:
        return (-(-edge // self.token_edge)) ** 2

    def _arrangements(self) -> list[tuple[int, int]]:
        edges = range(1, self.max_patches + 1)
        allowed = [(c, r) for c in edges for r in edges if self.min_patches <= c * r <= self.max_patches]
        return sorted(allowed, key=lambda each: each[0] * each[1])


@dataclass(frozen=True)
class CropGrid:
    """Molmo2: the whole image at one size and overlapping crops of it on a canvas, each pooled, with marks.

    As its processor's settings name them: `size` in pixels, `margins` and `pooling` in patches (height,
    width). columns, whole_columns: a token ends each row of the crops, and of the whole image.
    """

    size: int
    patch_size: int
    pooling: tuple[int, int]
    margins: tuple[int, int]
    max_crops: int
    columns: bool
    whole_columns: bool

    @property
    def patches_a_token(self) -> int:
        """Vision patches behind a token, without the overlap of crops."""
        return self.pooling[0] * self.pooling[1]

    def count(self, widths: NDArray[np.int64], heights: NDArray[np.int64]) -> Counts:
        """Image tokens of images of these sizes in pixels, both [images]: int64 [images].

        transformers' `select_tiling`, in float32 as there, `compute_crop_geometry` and
        `replace_image_token` in molmo2.
        """
        window, margin = self._window * self.patch_size, sum(self.margins) * self.patch_size
        tilings = np.array(self._tilings(), np.int32)
        sizes = np.stack([heights - margin, widths - margin], axis=-1).astype(np.float32)
        # An image no larger than the margins divides by zero or less there too.
        with np.errstate(divide="ignore"):
            scales = (tilings * window).astype(np.float32)[None] / sizes[:, None]
        scale = scales.min(axis=-1)
        enlarging = np.where(scale < 1, np.float32(10e9), scale)
        chosen = np.where((scale < 1).all(axis=1), scale.argmax(axis=1), enlarging.argmin(axis=1))
        canvas = tilings[chosen].astype(np.int64) * self._window + sum(self.margins)
        rows, columns = -(-canvas[:, 0] // self.pooling[0]), -(-canvas[:, 1] // self.pooling[1])
        return self._whole + 2 + rows * (columns + self.columns)

    def tokens(self, width: int, height: int) -> int:
        """Image tokens of one image of this size in pixels, its marks included."""
        return int(self.count(np.array([width]), np.array([height]))[0])

    @property
    def most_tokens(self) -> int:
        """Tokens of the costliest image."""
        most = 0
        for down, across in self._tilings():
            high, wide = (each * self._window + sum(self.margins) for each in (down, across))
            rows, columns = -(-high // self.pooling[0]), -(-wide // self.pooling[1])
            most = max(most, rows * (columns + self.columns))
        return self._whole + 2 + most

    @property
    def _window(self) -> int:
        return self.size // self.patch_size - sum(self.margins)

    @property
    def _whole(self) -> int:
        edge = self.size // self.patch_size
        rows, columns = -(-edge // self.pooling[0]), -(-edge // self.pooling[1])
        return 2 + rows * (columns + self.whole_columns)

    def _tilings(self) -> list[tuple[int, int]]:
        edges = range(1, self.max_crops + 1)
        allowed = [(down, across) for down in edges for across in edges if down * across <= self.max_crops]
        return sorted(allowed, key=lambda each: (each[0] * each[1], each[0]))
