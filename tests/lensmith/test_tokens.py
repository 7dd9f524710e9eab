"""Image tokens without a model, against the processors that decide."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmith import families
from lensmith.counting import count_tokens, sum_by_row
from lensmith.errors import InputError
from lensmith.tokens import FixedGrid, ImageGrid, PanAndScan, PixelBudget, read_fixed_grid, read_grid

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


def sizes_at_random(count: int, seed: int) -> np.ndarray:
    """(width, height), log-uniform from 8 to 8000 pixels, no longer than 200:1."""
    edges = np.exp(np.random.default_rng(seed).uniform(np.log(8), np.log(8000), (2 * count, 2))).astype(int)
    return edges[edges.max(axis=1) <= 200 * edges.min(axis=1)][:count]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "patch"), [("qwen3_vl", 16), ("glm4v", 14)])
def test_thousands_of_sizes_one_by_one_and_at_once(tmp_path: Path, family: str, patch: int) -> None:
    from transformers import Glm4vImageProcessor, Qwen2VLImageProcessor

    kinds = {"qwen3_vl": Qwen2VLImageProcessor, "glm4v": Glm4vImageProcessor}
    for seed, budget in enumerate(BUDGETS):
        bounds = {"shortest_edge": budget[0], "longest_edge": budget[1]}
        processor = kinds[family](patch_size=patch, size=bounds)
        processor.save_pretrained(tmp_path)
        grid = read_grid(tmp_path, families.get(family), None)
        sizes = np.concatenate([sizes_at_random(3000, seed), np.array(SIZES)])
        expected = [processor.get_number_of_image_patches(h, w, {}) // 4 for w, h in sizes.tolist()]
        assert [grid.tokens(w, h) for w, h in sizes.tolist()] == expected
        assert count_tokens(grid, sizes[:, 0], sizes[:, 1]).tolist() == expected


def gemma3(folder: Path, *, crops: bool) -> Any:
    """Gemma 3's real processor with a tokenizer of a few tokens, saved to `folder`."""
    from tokenizers import Tokenizer, models
    from transformers import Gemma3ImageProcessor, Gemma3Processor, PreTrainedTokenizerFast

    special = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")),
        unk_token="<unk>",
        extra_special_tokens=special,
    )
    scan = {"min_crop_size": 256, "max_num_crops": 4, "min_ratio_to_activate": 1.2}
    images = Gemma3ImageProcessor(
        size={"height": 896, "width": 896},
        do_pan_and_scan=crops,
        **{f"pan_and_scan_{name}": value for name, value in scan.items()},
    )
    processor = Gemma3Processor(images, tokenizer)
    processor.save_pretrained(folder)
    return processor


@pytest.mark.slow
@pytest.mark.parametrize("crops", [False, True])
def test_gemma_3_as_its_processor_counts(tmp_path: Path, crops: bool) -> None:
    from PIL import Image

    processor = gemma3(tmp_path, crops=crops)
    grid = read_fixed_grid(tmp_path)
    assert grid == FixedGrid(896, 896, 256, PanAndScan(256, 4, 1.2) if crops else None)
    seen = set()
    for width, height in [
        (300, 200),
        (512, 256),
        (256, 600),
        (1400, 400),
        (3000, 257),
        (2600, 1000),
        (640, 640),
    ]:
        given = processor(text=["<boi>"], images=[[Image.new("RGB", (width, height))]], do_pan_and_scan=crops)
        count = given["input_ids"][0].count(processor.tokenizer.image_token_id)
        assert grid.tokens(width, height) == count, (width, height)
        seen.add(count)
    assert len(seen) == (4 if crops else 1)


@pytest.mark.slow
def test_gemma_3_crops_over_thousands_of_sizes(tmp_path: Path) -> None:
    import torch

    images = gemma3(tmp_path, crops=True).image_processor
    for scan in (PanAndScan(256, 4, 1.2), PanAndScan(100, 6, 1.5), PanAndScan(224, 2, 1.0)):
        grid = FixedGrid(896, 896, 256, scan)
        sizes = sizes_at_random(4000, 5)
        expected = [
            256 * (1 + len(images.pan_and_scan_batched(torch.empty(3, h, w, device="meta"), *astuple(scan))))
            for w, h in sizes.tolist()
        ]
        assert [grid.tokens(w, h) for w, h in sizes.tolist()] == expected
        assert count_tokens(grid, sizes[:, 0], sizes[:, 1]).tolist() == expected
        assert len(set(expected)) > 1


def save(processor: Any, folder: Path) -> Path:
    """An image processor's settings, as a checkpoint has them."""
    processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("size", "tile"), [(1024, 768), (768, 768), (1024, 640)])
def test_deepseek_ocr_2_as_its_processor_counts(tmp_path: Path, size: int, tile: int) -> None:
    from transformers import DeepseekOcr2ImageProcessor

    images = DeepseekOcr2ImageProcessor(size={"height": size, "width": size}, tile_size=tile)
    grid = read_grid(save(images, tmp_path), families.get("deepseek_ocr2"), None)
    sizes = np.concatenate(
        [sizes_at_random(3000, 3), np.array([*SIZES, (769, 768), (768, 768), (1536, 768)])]
    )
    whole, one = (size // 64) ** 2, (tile // 64) ** 2
    expected = [whole + 1 + one * (images.get_number_of_image_patches(h, w) - 1) for w, h in sizes.tolist()]
    assert [grid.tokens(w, h) for w, h in sizes.tolist()] == expected
    assert count_tokens(grid, sizes[:, 0], sizes[:, 1]).tolist() == expected
    assert grid.most_tokens == max(expected)
    assert len(set(expected)) > 4


@pytest.mark.slow
@pytest.mark.parametrize(("crops", "margins"), [(8, [4, 4]), (24, [4, 4]), (3, [2, 1])])
def test_molmo2_as_its_processor_counts(tmp_path: Path, crops: int, margins: list[int]) -> None:
    from transformers import Molmo2ImageProcessor

    images = Molmo2ImageProcessor(max_crops=crops, overlap_margins=margins)
    grid = read_grid(save(images, tmp_path), families.get("molmo2"), None)
    margin = 14 * sum(margins)
    small = [(margin, 300), (300, margin), (margin, margin), (margin - 1, 2 * margin), (10, 10)]
    sizes = np.concatenate([sizes_at_random(1500, 4), np.array([*SIZES, *small])])
    expected = []
    for width, height in sizes.tolist():
        whole_rows, whole_columns, rows, columns = images.get_image_grid_and_crops(height, width)[0]
        expected.append(4 + whole_rows * (whole_columns + 1) + rows * (columns + 1))
    assert [grid.tokens(w, h) for w, h in sizes.tolist()] == expected
    assert count_tokens(grid, sizes[:, 0], sizes[:, 1]).tolist() == expected
    assert grid.most_tokens >= max(expected)
    assert len(set(expected)) > 4


@pytest.mark.parametrize(
    ("family", "setting"),
    [("gemma3", {"do_pan_and_scan": True}), ("deepseek_ocr2", {"max_patches": 3})],
)
def test_settings_that_the_processor_overrides_are_refused(
    tmp_path: Path, family: str, setting: dict[str, Any]
) -> None:
    """transformers' processor class has a default of its own that goes before the checkpoint's."""
    with pytest.raises(InputError, match="states what its processor does not do") as error:
        read_grid(checkpoint(tmp_path, **setting), families.get(family), None)
    assert f"{next(iter(setting))}: is" in str(error.value)


@pytest.mark.parametrize("family", ["gemma3", "deepseek_ocr2", "molmo2"])
def test_a_budget_that_no_processor_keeps_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(InputError, match="cuts images to sizes of its own"):
        read_grid(checkpoint(tmp_path), families.get(family), PixelBudget(1024, 8192))


@pytest.mark.parametrize("family", ["deepseek_ocr2", "molmo2"])
def test_a_processor_of_another_family_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(InputError, match="in its image processor"):
        read_grid(checkpoint(tmp_path), families.get(family), None)


def test_a_checkpoint_that_resizes_otherwise_has_no_fixed_grid(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one size"):
        read_fixed_grid(checkpoint(tmp_path))


def test_a_budget_in_tokens_bounds_tokens(tmp_path: Path) -> None:
    """For both families: no image costs more or less than it says, but where the shape forces it."""
    for factor, frames in ((32, 1), (28, 2)):
        area = ImageGrid(factor, frames, PixelBudget(1, 2)).token_area
        grid = ImageGrid(factor, frames, PixelBudget(16 * area, 256 * area))
        sizes = sizes_at_random(4000, 9)
        counts = count_tokens(grid, sizes[:, 0], sizes[:, 1])
        usual = sizes.max(axis=1) <= 8 * sizes.min(axis=1)
        assert counts[usual].min() >= 16
        assert counts[usual].max() <= 256
        assert counts.max() > 240


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


def test_rows_add_up_their_images() -> None:
    counts = count_tokens(ImageGrid(32, 1, PixelBudget(4096, 262_144)), [256, 64, 64], [128, 64, 64])
    assert sum_by_row(counts, [0, 2, 2], 4).tolist() == [32, 0, 8, 0]
