"""Image tokens of a million images at once: what `tokens` says of each, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.tiles import CropGrid, TileGrid
from lensmith.tokens import FixedGrid, Grid, ImageGrid

Edges = Sequence[int] | NDArray[Any]
Counts = NDArray[np.int64]


def count_tokens(grid: Grid, widths: Edges, heights: Edges) -> Counts:
    """`grid.tokens` of many images: int64 [images] of widths and heights in pixels, both [images]."""
    if isinstance(grid, (TileGrid, CropGrid)):
        return grid.count(np.asarray(widths, np.int64), np.asarray(heights, np.int64))
    if isinstance(grid, FixedGrid):
        return _fixed(grid, np.asarray(widths, np.int64), np.asarray(heights, np.int64))
    return _dynamic(grid, np.asarray(widths, np.float64), np.asarray(heights, np.float64))


def sum_by_row(counts: Counts, rows: Sequence[int] | NDArray[Any], number: int) -> Counts:
    """Tokens of each row, int64 [number]: `counts` of images added up by `rows`, int [images], from 0."""
    sums = np.zeros(number, np.int64)
    np.add.at(sums, np.asarray(rows, np.int64), counts)
    return sums


def _dynamic(grid: ImageGrid, width: NDArray[np.float64], height: NDArray[np.float64]) -> Counts:
    """The operations of `ImageGrid.resized` in their order on float64: no size is rounded another way."""
    factor, frames, budget = grid.factor, grid.frames, grid.budget
    if frames > 1:
        thin = np.minimum(width, height) < factor
        scale = np.maximum(factor / height, factor / width)
        width = np.where(thin, np.trunc(width * scale), width)
        height = np.where(thin, np.trunc(height * scale), height)
    rows, columns = np.rint(height / factor) * factor, np.rint(width / factor) * factor
    area = frames * rows * columns
    beta = np.sqrt(frames * height * width / budget.max_pixels)
    large = area > budget.max_pixels
    rows = np.where(large, np.maximum(factor, np.floor(height / beta / factor) * factor), rows)
    columns = np.where(large, np.maximum(factor, np.floor(width / beta / factor) * factor), columns)
    beta = np.sqrt(budget.min_pixels / (frames * height * width))
    small = ~large & (area < budget.min_pixels)
    rows = np.where(small, np.ceil(height * beta / factor) * factor, rows)
    columns = np.where(small, np.ceil(width * beta / factor) * factor, columns)
    return (rows // factor).astype(np.int64) * (columns // factor).astype(np.int64)


def _fixed(grid: FixedGrid, width: NDArray[np.int64], height: NDArray[np.int64]) -> Counts:
    images = np.ones(width.shape, np.int64)
    if (scan := grid.pan_and_scan) is not None:
        long, short = np.maximum(width, height), np.minimum(width, height)
        crops = np.minimum(long // scan.min_crop_size, np.floor(long / short + 0.5).astype(np.int64))
        crops = np.minimum(scan.max_num_crops, np.maximum(2, crops))
        edge = np.minimum(-(-long // crops), short)
        taken = (long / short >= scan.min_ratio_to_activate) & (edge >= scan.min_crop_size)
        images += np.where(taken, crops, 0)
    return images * grid.tokens_an_image
