"""Videos as the model is given them: groups of frames, each as an image of its own.

The classes of these families run the same tower over both, frame group by frame group, and give the groups
the positions that images have (transformers 5.20.2, `get_video_features` and `get_rope_index` of qwen3_vl and
glm4v). GLM's cannot take a batch that has images and videos: it writes both with one token. As images they
are one run of the tower, which every process joins, and can be packed and kept as others can. Molmo2's does
the same itself, of a video as one tall image; it, too, takes a batch of images or of videos, not of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor
from transformers import ProcessorMixin

from finetune.encoded import join_padded
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family
from lensmith.families.video_form import VideoForm
from lensmith.sample import Image, Sample, Video
from lensmith.tokens import PixelBudget
from lensmith.video_tokens import SquareGrid, VideoGrid

# Frames are numbered by the millisecond they are shown at.
CLOCK = 1000.0
_IMAGE, _VIDEO = 1, 2


def videos_given(form: VideoForm, videos: Sequence[tuple[Video, Sequence[Picture.Image]]]) -> dict[str, Any]:
    """What a family's processor is asked of videos whose frames were sampled before: none is left out.

    Where the family writes whole seconds it is told no others: not every class of processor cuts them.
    """
    whole = form.time == "first"
    metadata = [
        {
            "fps": CLOCK,
            "frames_indices": [round((int(each) if whole else each) * CLOCK) for each in video.seconds],
            "total_num_frames": max(1, round(video.duration * CLOCK)),
            "duration": video.duration,
        }
        for video, _ in videos
    ]
    return {
        "videos": [np.stack([np.asarray(frame) for frame in frames]) for _, frames in videos],
        "videos_kwargs": {"video_metadata": metadata, "do_sample_frames": False, **form.settings},
    }


def as_images(
    given: Mapping[str, Any], family: Family, text: str, sample: Sample, processor: ProcessorMixin
) -> dict[str, Any]:
    """What the processor gave of a row with videos, with each group of frames as an image.

    text: the rendered conversation. The tokens of frames become those of images: features take their place,
    whichever they are. Raises InputError where the chat template writes a video before an image, and the
    family's images are taken first.
    """
    if family.video and family.video.cut == "square":
        if text.find(family.video.place) < text.rfind(family.image_text.place):
            problem = Problem("stands before an image's place", family.video.place, "mend the template")
            raise InputError(
                "the chat template does not write images first, as this family takes them", [problem]
            )
        return _squares_as_images(given)
    types = given["mm_token_type_ids"]
    image_token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)  # pyright: ignore[reportAttributeAccessIssue]
    stills = _pieces(given, "pixel_values", "image_grid_thw")
    videos = _pieces(given, "pixel_values_videos", "video_grid_thw")
    patches: list[Tensor] = []
    grids: list[Tensor] = []
    for part in sample.parts():
        if isinstance(part, Image | Video):
            pixels, grid = next(stills if isinstance(part, Image) else videos)
            patches.append(pixels)
            grids += [torch.cat([torch.ones_like(grid[:1]), grid[1:]])] * int(grid[0])
    return {
        **{
            name: each for name, each in given.items() if not name.endswith("_videos") and "video" not in name
        },
        "input_ids": given["input_ids"].masked_fill(types == _VIDEO, image_token),
        "mm_token_type_ids": types.masked_fill(types == _VIDEO, _IMAGE),
        "pixel_values": torch.cat(patches),
        "image_grid_thw": torch.stack(grids),
    }


def as_asked(ids: Sequence[int], family: Family, sample: Sample, config: Mapping[str, Any]) -> list[int]:
    """A prompt's ids as the class itself, and so an engine, is asked them: the inverse of what `as_images`
    does to them.

    config: the checkpoint's, which names the tokens. Raises ValueError where the prompt has not as many runs
    of image tokens as the sample has images and groups of frames.
    """
    form = family.video
    if form is None or not form.id or not sample.videos:
        return list(ids)
    image, video = config[family.image_id], config[form.id]
    kinds = [
        kind
        for part in sample.parts()
        if isinstance(part, Image | Video)
        for kind in ([image] if isinstance(part, Image) else [video] * form.groups(len(part.frames)))
    ]
    written: list[int] = []
    waiting = iter(kinds)
    for token, run in groupby(ids):
        length = sum(1 for _ in run)
        written += [next(waiting) if token == image else token] * length
    if any(True for _ in waiting):
        raise ValueError(
            f"a prompt of {len(kinds)} images and groups of frames has fewer runs of their token"
        )
    return written


def _squares_as_images(given: Mapping[str, Any]) -> dict[str, Any]:
    """Each frame an image without crops, behind the row's images, whose tokens are the same already."""
    frames, rows, columns = given["video_grids"].unbind(-1)
    each = torch.stack([rows, columns, torch.zeros_like(rows), torch.zeros_like(rows)], dim=-1)
    pixels, pooling = given["pixel_values_videos"], given["video_token_pooling"]
    images = {
        "pixel_values": pixels,
        "image_token_pooling": pooling,
        "image_grids": each.repeat_interleave(frames, dim=0),
        "image_num_crops": torch.ones(len(pixels), dtype=torch.int64),
    }
    if "pixel_values" in given:
        patches = given["pixel_values"].shape[0] * given["pixel_values"].shape[1]
        images["image_token_pooling"] = torch.where(pooling < 0, pooling, pooling + patches)
        stills = {name: given[name] for name in images}
        pooled = join_padded([stills.pop("image_token_pooling"), images["image_token_pooling"]])
        images = {name: torch.cat([each, images[name]]) for name, each in stills.items()}
        images["image_token_pooling"] = pooled
    return {name: values for name, values in given.items() if "video" not in name} | images


def _pieces(given: Mapping[str, Any], pixels: str, grids: str) -> Any:
    """The patches and the grid (time, height, width) of each image or video."""
    if grids not in given:
        return iter(())
    sizes = given[grids].prod(-1).tolist()
    return zip(given[pixels].split(sizes), given[grids], strict=True)


def check_scaled(processor: ProcessorMixin) -> None:
    """Refuse (InputError) a video processor that gives pixels as they lie in files, from 0 to 255.

    transformers' own for Molmo2 (5.20.2) does where a checkpoint does not say that it must not, and says
    nothing when it is saved; the tower then sees a hundred times what it was taught on.
    """
    settings = processor.video_processor
    left_out = [name for name in ("do_rescale", "do_normalize") if not getattr(settings, name, None)]
    if left_out:
        mend = "set it to true there, as the published checkpoints of the family have it"
        place = "processor_config.json (video_processor) or video_preprocessor_config.json"
        raise InputError(
            "the checkpoint's video processor gives pixels that the vision tower was not taught on",
            [Problem(f"{name} is not true", place, mend) for name in left_out],
        )


def video_grid(processor: ProcessorMixin, family: Family) -> VideoGrid | SquareGrid:
    """How `processor` cuts frames. For a family that takes videos. Raises InputError as `check_scaled`."""
    check_scaled(processor)
    settings = processor.video_processor
    if family.video and family.video.cut == "square":
        height, width = settings.pooling_size
        columns = processor.video_use_col_tokens  # pyright: ignore[reportAttributeAccessIssue]
        return SquareGrid(settings.size["height"], settings.patch_size, (height, width), columns)
    budget = PixelBudget(settings.size["shortest_edge"], settings.size["longest_edge"])
    return VideoGrid(settings.patch_size * settings.merge_size, settings.temporal_patch_size, budget)
