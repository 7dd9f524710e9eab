"""Image tokens without a model, against the processors that decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from lensmith.errors import InputError
from lensmith.tokens import ImageGrid, PixelBudget, read_grid

SIZES = [
    *((width, height) for width in (8, 27, 33, 100, 256, 641, 1003) for height in (8, 31, 56, 129, 480, 999)),
    (200 * 9, 9),
    (9, 200 * 9),
    (4000, 3000),
    (3000, 8000),
    (16, 16),
    (32, 48),
    (48, 32),
    (80, 80),
    (112, 112),
]
BUDGETS = [(4096, 262_144), (65_536, 16_777_216), (3136, 100_000), (12_544, 9_633_792)]


def checkpoint(root: Path, **settings: Any) -> Path:
    content = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 4096, "longest_edge": 262_144}}
    (root / "preprocessor_config.json").write_text(json.dumps(content | settings))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("family", "patch"), [("qwen3_vl", 16), ("qwen3_vl", 14), ("glm4v", 14)])
def test_as_the_real_processors_count(
    tmp_path: Path, family: str, patch: int, budget: tuple[int, int]
) -> None:
    from transformers import Glm4vImageProcessor, Qwen2VLImageProcessor

    kinds = {"qwen3_vl": Qwen2VLImageProcessor, "glm4v": Glm4vImageProcessor}
    processor = kinds[family](patch_size=patch, size={"shortest_edge": budget[0], "longest_edge": budget[1]})
    processor.save_pretrained(tmp_path)
    grid = read_grid(tmp_path, families.get(family), None)
    assert grid.factor == patch * 2
    for width, height in SIZES:
        expected = processor.get_number_of_image_patches(height, width, {}) // processor.merge_size**2
        assert grid.tokens(width, height) == expected, (width, height)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "patch"), [("qwen3_vl", 16), ("glm4v", 14)])
def test_as_the_real_processors_cut(tmp_path: Path, family: str, patch: int) -> None:
    from PIL import Image
    from transformers import Glm4vImageProcessor, Qwen2VLImageProcessor

    kinds = {"qwen3_vl": Qwen2VLImageProcessor, "glm4v": Glm4vImageProcessor}
    processor = kinds[family](patch_size=patch, size={"shortest_edge": 4096, "longest_edge": 200_000})
    processor.save_pretrained(tmp_path)
    grid = read_grid(tmp_path, families.get(family), None)
    for width, height in [(8, 8), (33, 700), (256, 128), (641, 480), (1003, 999), (1800, 9), (2000, 1500)]:
        _, rows, columns = processor(images=[Image.new("RGB", (width, height))])["image_grid_thw"][0]
        assert grid.resized(width, height) == (columns * patch, rows * patch), (width, height)
        assert grid.tokens(width, height) == rows * columns // 4


def test_sizes_that_were_worked_out_by_hand() -> None:
    grid = ImageGrid(32, 1, PixelBudget(4096, 262_144))
    assert grid.tokens(256, 128) == 32
    assert grid.resized(8, 8) == (64, 64)
    assert grid.resized(1024, 512) == (704, 352)
    # 28 x 28 pixels a token, both frames of a still image counted against the budget.
    assert ImageGrid(28, 2, PixelBudget(12_544, 9_633_792)).resized(280, 140) == (280, 140)


def test_the_recipe_s_budget_goes_before_the_checkpoint_s(tmp_path: Path) -> None:
    root = checkpoint(tmp_path)
    family = families.get("qwen3_vl")
    assert read_grid(root, family, None) == ImageGrid(32, 1, PixelBudget(4096, 262_144))
    assert read_grid(root, family, PixelBudget(1024, 8192)).tokens(256, 128) == 8


def test_the_newer_file_of_a_processor_is_read_too(tmp_path: Path) -> None:
    inner = {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": 12_544, "longest_edge": 9_633_792}}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    assert read_grid(tmp_path, families.get("glm4v"), None).factor == 28


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"patch_size": 16, "merge_size": 2}'])
def test_checkpoints_without_an_image_processor(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(InputError):
        read_grid(tmp_path, families.get("qwen3_vl"), None)
