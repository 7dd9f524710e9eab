"""How a family's class runs its vision tower, as data: enough to run it where a batch has no image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionRun:
    """One run over the images of a batch, by the class's get_image_features.

    takes: the image tensors that it is given. gives: what of its output enters the language model; nothing
    else of it has a gradient. views: a tensor that some images alone have, "" for none: where a batch lacks
    it, vision tower and connector run once instead of twice. blank: (width, height) in pixels of a small
    image that has every tensor.
    """

    takes: tuple[str, ...]
    gives: tuple[str, ...] = ("pooler_output",)
    views: str = ""
    blank: tuple[int, int] = (64, 64)
