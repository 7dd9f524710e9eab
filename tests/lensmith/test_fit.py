"""Rows that are too long are reduced by their largest images, or refused; never cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.fit import fit
from lensmith.tokens import FixedGrid, Grid, ImageGrid, PanAndScan, PixelBudget

QWEN = ImageGrid(32, 1, PixelBudget(4096, 4_194_304))
GLM = ImageGrid(28, 2, PixelBudget(12_544, 9_633_792))
GEMMA = FixedGrid(896, 896, 256, PanAndScan(256, 4, 1.2))
edges = st.integers(64, 4000)
rows = st.lists(st.tuples(edges, edges), min_size=1, max_size=4)


def cost(sizes: tuple[tuple[int, int], ...], text: int, grid: Grid) -> int:
    return text + sum(grid.tokens(*size) for size in sizes)


@pytest.mark.parametrize("grid", [QWEN, GLM, GEMMA])
@given(sizes=rows, text=st.integers(1, 3000), limit=st.integers(16, 4000))
def test_what_fits_fits(grid: Grid, sizes: list[tuple[int, int]], text: int, limit: int) -> None:
    found = fit(sizes, text, grid, limit)
    whole = cost(tuple(sizes), text, grid)
    if whole <= limit:
        assert found == tuple(sizes)
    elif text >= limit:
        assert found is None
    if found is not None:
        assert cost(found, text, grid) <= limit
        for (width, height), (new_width, new_height) in zip(sizes, found, strict=True):
            assert new_width <= width
            assert new_height <= height
            # The shape stays, to the rounding of its edges.
            scale = new_width / width
            assert abs(new_height - height * scale) <= 1 + 0.5 * height / width


def test_only_the_largest_images_are_reduced_and_no_more_than_needed() -> None:
    found = fit([(2000, 1500), (320, 320)], 100, QWEN, 1000)
    assert found is not None
    assert found[1] == (320, 320)
    assert 980 <= cost(found, 100, QWEN) <= 1000
    bigger = tuple((round(width * 1.05), round(height * 1.05)) for width, height in found[:1])
    assert cost((*bigger, (320, 320)), 100, QWEN) > 1000


def test_rows_that_cannot_fit_are_none() -> None:
    assert fit([(2000, 1500)], 1000, QWEN, 1000) is None
    # Four tokens an image are the least of this budget: enlarged again, whatever its size.
    assert fit([(640, 640)] * 3, 100, ImageGrid(32, 1, PixelBudget(4096, 1 << 20)), 111) is None
    assert fit([(640, 640)], 0, GEMMA, 255) is None
    assert fit([], 10, QWEN, 9) is None
    assert fit([], 9, QWEN, 9) is not None
