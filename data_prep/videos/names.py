"""How frames that were taken of a video are named: `clip.mp4#video-frame=1` is the first."""

from __future__ import annotations

from data_prep.sources.rendered import split_number

_FRAME = "video-frame"
# The frames of all videos, and the first of each, as SQL's LIKE finds them.
FRAMES = f"%#{_FRAME}=%"
FIRST_FRAMES = f"%#{_FRAME}=1"


def frame_path(video: str, number: int) -> str:
    """The name of the `number`th frame, from 1."""
    return f"{video}#{_FRAME}={number}"


def frame_of(path: str) -> tuple[str, int] | None:
    """The inverse of `frame_path`; None for what is no frame."""
    return split_number(path, _FRAME)
