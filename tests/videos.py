"""Real videos for tests: digits that move, encoded by the library that decodes them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}


def make_clip(
    path: Path, digits: str, frames: int = 20, fps: float = 10.0, size: tuple[int, int] = (96, 64)
) -> Path:
    """A clip in the container of the path's ending: the digits in turn, each moving to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODECS[path.suffix]), fps, size
    )
    assert video.isOpened()
    width, height = size
    for number in range(frames):
        picture = np.full((height, width, 3), 255, np.uint8)
        # Every clip has a background of its own: no frame of two is one.
        picture[:, :, number % 3] -= np.uint8(sum(map(ord, path.stem)) % 97)
        digit = digits[number * len(digits) // frames]
        place = (5 + number * (width - 40) // frames, height - 18)
        cv2.putText(picture, digit, place, cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 3)
        video.write(picture)
    video.release()
    return path
