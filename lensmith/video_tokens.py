"""How many tokens a video costs, and which of a row's pictures are its frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lensmith.sample import Image, Sample, Video
from lensmith.tokens import PixelBudget

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class VideoGrid:
    """How a checkpoint's video processor cuts frames: `factor` is patch times merge size in pixels, `frames`
    are seen as one; `budget` bounds the pixels of all frames together."""

    factor: int
    frames: int
    budget: PixelBudget

    def resized(self, frames: int, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of each of so many frames after the processor's resize.

        The rule of transformers' `smart_resize` in the video processors of qwen3_vl and glm4v.
        """
        factor = self.factor
        if min(width, height) < factor:
            scale = max(factor / height, factor / width)
            width, height = int(width * scale), int(height * scale)
        new_height = round(height / factor) * factor
        new_width = round(width / factor) * factor
        area = round(frames / self.frames) * self.frames * new_height * new_width
        if area > self.budget.max_pixels:
            beta = math.sqrt(frames * height * width / self.budget.max_pixels)
            new_height = max(factor, math.floor(height / beta / factor) * factor)
            new_width = max(factor, math.floor(width / beta / factor) * factor)
        elif area < self.budget.min_pixels:
            beta = math.sqrt(self.budget.min_pixels / (frames * height * width))
            new_height = math.ceil(height * beta / factor) * factor
            new_width = math.ceil(width * beta / factor) * factor
        return new_width, new_height

    def tokens(self, frames: int, width: int, height: int) -> int:
        """Language-model tokens of a video of so many frames of this size; the words between are text."""
        new_width, new_height = self.resized(frames, width, height)
        groups = -(-frames // self.frames)
        return groups * (new_width // self.factor) * (new_height // self.factor)


@dataclass(frozen=True)
class SquareGrid:
    """How a checkpoint's video processor cuts frames that it resizes to one size, `size` pixels a side:
    patches of `patch_size` pixels are pooled, `pooling` (height, width) of them to a token; two marks stand
    around a frame's, and with `columns` a token ends each row."""

    size: int
    patch_size: int
    pooling: tuple[int, int]
    columns: bool

    def tokens(self, frames: int, width: int, height: int) -> int:
        """Language-model tokens of a video of so many frames, whatever their size; marks included.

        transformers' `arange_for_pooling` and `get_video_string` in molmo2.
        """
        edge = self.size // self.patch_size
        rows, columns = (-(-edge // each) for each in self.pooling)
        return frames * (2 + rows * (columns + self.columns))


def apart(
    sample: Sample, pictures: Sequence[Picture]
) -> tuple[list[Picture], list[tuple[Video, list[Picture]]]]:
    """What is known of each of `sample.images`, as that of its images, and of each video's frames.

    Raises ValueError where it is not of as many pictures.
    """
    waiting = iter(pictures)
    stills: list[Picture] = []
    videos: list[tuple[Video, list[Picture]]] = []
    if len(pictures) != len(sample.images):
        raise ValueError(f"{len(pictures)} pictures of a row that shows {len(sample.images)}")
    for part in sample.parts():
        if isinstance(part, Image):
            stills.append(next(waiting))
        elif isinstance(part, Video):
            videos.append((part, [next(waiting) for _ in part.frames]))
    return stills, videos
