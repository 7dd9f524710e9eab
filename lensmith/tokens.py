"""How many tokens an image costs, without loading a model or running a processor.

The grids agree with the checkpoint's own processor on every size; `counting` does a million images at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.errors import InputError, Problem
from lensmith.families.family import Family
from lensmith.tiles import CropGrid, TileGrid


@dataclass(frozen=True)
class PixelBudget:
    """The bounds on an image's area after resizing, in pixels."""

    min_pixels: int
    max_pixels: int


@dataclass(frozen=True)
class ImageGrid:
    """How a checkpoint's processor cuts images: `factor` is patch times merge size in pixels, one
    language-model token covers `factor` x `factor` pixels; `frames` as in `Family.frames`;
    `patches_a_token` is the merge size squared."""

    factor: int
    frames: int
    budget: PixelBudget
    patches_a_token: int = 4

    @property
    def token_area(self) -> int:
        """What one token counts against the pixel budget, in pixels."""
        return self.factor**2 * self.frames

    @property
    def most_tokens(self) -> int:
        """Tokens of the costliest image."""
        return self.budget.max_pixels // self.token_area

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after the processor's resize.

        The rule of transformers' `smart_resize` in qwen2_vl (frames 1) and glm4v (frames 2).
        """
        factor, frames = self.factor, self.frames
        if frames > 1 and min(width, height) < factor:
            scale = max(factor / height, factor / width)
            width, height = int(width * scale), int(height * scale)
        new_height = round(height / factor) * factor
        new_width = round(width / factor) * factor
        if frames * new_height * new_width > self.budget.max_pixels:
            beta = math.sqrt(frames * height * width / self.budget.max_pixels)
            new_height = max(factor, math.floor(height / beta / factor) * factor)
            new_width = max(factor, math.floor(width / beta / factor) * factor)
        elif frames * new_height * new_width < self.budget.min_pixels:
            beta = math.sqrt(self.budget.min_pixels / (frames * height * width))
            new_height = math.ceil(height * beta / factor) * factor
            new_width = math.ceil(width * beta / factor) * factor
        return new_width, new_height

    def tokens(self, width: int, height: int) -> int:
        """Language-model tokens of an image of this size."""
        new_width, new_height = self.resized(width, height)
        return (new_width // self.factor) * (new_height // self.factor)


@dataclass(frozen=True)
class PanAndScan:
    """Gemma 3's crops of long images, as its processor's settings name them; edges in pixels."""

    min_crop_size: int
    max_num_crops: int
    min_ratio_to_activate: float

    def crops(self, width: int, height: int) -> int:
        """How many crops are added to the whole image (transformers' `pan_and_scan` in gemma3)."""
        long, short = max(width, height), min(width, height)
        if long / short < self.min_ratio_to_activate:
            return 0
        crops = min(long // self.min_crop_size, math.floor(long / short + 0.5))
        crops = min(self.max_num_crops, max(2, crops))
        return 0 if min(math.ceil(long / crops), short) < self.min_crop_size else crops


@dataclass(frozen=True)
class FixedGrid:
    """A processor that resizes every image to one size, in pixels (Gemma 3: 896 x 896, 256 tokens);
    `patches_a_token` is how many of the vision tower's patches its connector pools into one token."""

    width: int
    height: int
    tokens_an_image: int
    pan_and_scan: PanAndScan | None = None
    patches_a_token: int = 16

    @property
    def most_tokens(self) -> int:
        """Tokens of the costliest image."""
        return self.tokens_an_image * (1 + (self.pan_and_scan.max_num_crops if self.pan_and_scan else 0))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after the processor's resize; each crop has the same."""
        return self.width, self.height

    def tokens(self, width: int, height: int) -> int:
        """Image tokens of an image of this size, its crops included; the words around crops are text."""
        crops = self.pan_and_scan.crops(width, height) if self.pan_and_scan else 0
        return self.tokens_an_image * (1 + crops)


Grid = ImageGrid | FixedGrid | TileGrid | CropGrid


def read_grid(checkpoint: Path, family: Family, budget: PixelBudget | None) -> Grid:
    """The grid that the checkpoint's own processor states, under the recipe's `budget` where it has one.

    Raises InputError where the checkpoint has no image processor or not one of this family, and for a budget
    that its family's processor cannot keep.
    """
    if family.cut == "area":
        return read_area_grid(checkpoint, family, budget)
    if budget is not None:
        raise no_budget(family)
    match family.cut:
        case "fixed":
            # transformers' Gemma3Processor goes by its own default, vLLM by the checkpoint's image processor.
            _check_kept(checkpoint, {"do_pan_and_scan": False})
            return read_fixed_grid(checkpoint)
        case "tiles":
            return _read_tile_grid(checkpoint)
        case "crops":
            return _read_crop_grid(checkpoint)


def read_area_grid(checkpoint: Path, family: Family, budget: PixelBudget | None) -> ImageGrid:
    """As `read_grid`, for families whose processor keeps a pixel budget. Raises InputError for the others."""
    if family.cut != "area":
        raise no_budget(family)
    settings = _processor_settings(checkpoint)
    try:
        size = settings["size"]
        stated = PixelBudget(size["shortest_edge"], size["longest_edge"])
        merge = settings["merge_size"]
        return ImageGrid(settings["patch_size"] * merge, family.frames, budget or stated, merge**2)
    except KeyError as error:
        raise _not_of_family(checkpoint, error) from error


def no_budget(family: Family) -> InputError:
    """The error for a pixel budget that a family's processor does not know."""
    problem = Problem("has no pixel budget", f"{family.title}'s image processor", "leave out pixels")
    return InputError(f"{family.title} cuts images to sizes of its own", [problem])


def _not_of_family(checkpoint: Path, error: KeyError) -> InputError:
    mend = "fetch the whole checkpoint"
    problem = Problem("not a processor of this family", "preprocessor_config.json", mend)
    return InputError(f"{checkpoint} states no {error} in its image processor", [problem])


def read_fixed_grid(checkpoint: Path) -> FixedGrid:
    """The grid of a checkpoint whose processor resizes every image to one size.

    Raises InputError where the checkpoint has no image processor, or not one of this kind.
    """
    settings = _processor_settings(checkpoint)
    tokens = _whole_settings(checkpoint).get("image_seq_length", settings.get("image_seq_length"))
    size = settings.get("size", {})
    if not isinstance(tokens, int) or not {"width", "height"} <= size.keys():
        problem = Problem("states no image_seq_length or no fixed size", str(checkpoint), "name its family")
        raise InputError(f"{checkpoint} does not resize images to one size", [problem])
    scan = None
    if settings.get("do_pan_and_scan"):
        scan = PanAndScan(
            settings["pan_and_scan_min_crop_size"],
            settings["pan_and_scan_max_num_crops"],
            settings["pan_and_scan_min_ratio_to_activate"],
        )
    return FixedGrid(size["width"], size["height"], tokens, scan)


def _check_kept(checkpoint: Path, defaults: Mapping[str, object]) -> None:
    """Refuse (InputError) settings of an image processor in whose place the processor's defaults are used."""
    settings = _processor_settings(checkpoint)
    problems = [
        Problem(
            f"is {settings[name]!r}, transformers' processor uses {value!r}", name, f"set it to {value!r}"
        )
        for name, value in defaults.items()
        if settings.get(name) not in (None, value)
    ]
    if problems:
        raise InputError(f"{checkpoint} states what its processor does not do", problems)


def _read_tile_grid(checkpoint: Path) -> TileGrid:
    # The defaults of transformers' DeepseekOcr2Processor, whatever the image processor says.
    defaults = {"crop_to_patches": True, "min_patches": 2, "max_patches": 6}
    _check_kept(checkpoint, defaults)
    settings, whole = _processor_settings(checkpoint), _whole_settings(checkpoint)
    try:
        return TileGrid(
            size=settings["size"]["height"],
            tile_size=settings["tile_size"],
            # The class's defaults, which published checkpoints leave out.
            token_edge=whole.get("patch_size", 16) * whole.get("downsample_ratio", 4),
            min_patches=defaults["min_patches"],
            max_patches=defaults["max_patches"],
        )
    except KeyError as error:
        raise _not_of_family(checkpoint, error) from error


def _read_crop_grid(checkpoint: Path) -> CropGrid:
    settings, whole = _processor_settings(checkpoint), _whole_settings(checkpoint)
    columns = whole.get("image_use_col_tokens", True)
    of_whole = whole.get("use_single_crop_col_tokens")
    try:
        down, across = settings["pooling_size"]
        before, behind = settings["overlap_margins"]
        return CropGrid(
            size=settings["size"]["height"],
            patch_size=settings["patch_size"],
            pooling=(down, across),
            margins=(before, behind),
            max_crops=settings["max_crops"],
            columns=columns,
            whole_columns=columns if of_whole is None else of_whole,
        )
    except KeyError as error:
        raise _not_of_family(checkpoint, error) from error


def _whole_settings(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / "processor_config.json"
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    return content


def _processor_settings(checkpoint: Path) -> dict[str, Any]:
    for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = checkpoint / name
        if path.is_file():
            content = _read_json(path)
            settings = content if section is None else content.get(section)
            if settings:
                return settings
    raise InputError(
        f"{checkpoint} has no image processor",
        [
            Problem(
                "preprocessor_config.json and processor_config.json are missing",
                mend="fetch the whole checkpoint",
            )
        ],
    )
