"""What is taken of a video. Quick to import: worker processes hold nothing else of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Film:
    """Frames of a video as PNG, in the order of time; when each is shown, and how long the video lasts, in
    milliseconds from its first frame."""

    frames: tuple[bytes, ...]
    times: tuple[int, ...]
    duration: int
