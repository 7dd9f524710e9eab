"""Which frames are taken of a video, the same for data that is taught and for what a served model is asked.

Decoded under limits by the FFmpeg that OpenCV brings along. Only containers that hold their own streams are
opened, told by their first bytes: playlists, which name files and addresses, are not. The pixels are those of
the file's frames, turned upright as the file says; sound and metadata are left behind.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lensmith.images import MAX_ASPECT, BadImage, ImageLimits

# A file that breaks off shows fewer frames than its index promises; the index of some containers is a guess.
_LEAST_SHARE = 0.95
_NO_CONTAINER = "is not a video in one of the containers MP4 (MOV), Matroska (WebM) and AVI"


@dataclass(frozen=True)
class Sampled:
    """What is taken of a video: when each frame is shown and how long it all lasts, in milliseconds from the
    first frame; and the frames, RGB, of one size, decoded as they are asked for, once."""

    times: tuple[int, ...]
    duration: int
    pictures: Iterator[Image.Image]


def sample(
    descriptor: int,
    fps: float,
    max_frames: int,
    max_pixels: int,
    limits: ImageLimits,
    seconds: float = math.inf,
) -> Sampled:
    """Sample the video in an open file, as the recipe's data.video says with these names.

    It is decoded twice: once to know when its frames are shown, whatever its header says, and once for those
    that are taken, for which the file must stay open. limits: of its frames, as they are in the file.
    seconds: what decoding may take in all. Raises BadImage, also while pictures are taken, where it is no
    whole video or its frames are too large or too small.
    """
    # Whatever a file asks for: FFmpeg opens no address.
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "protocol_whitelist;file"
    until = time.monotonic() + seconds
    _check_container(os.pread(descriptor, 12, 0))
    # By number: the file that was looked at, and no name that FFmpeg would guess a format from.
    path = f"/proc/self/fd/{descriptor}"
    times = _times(path, limits, until)
    wanted, duration = choose(times, fps, max_frames)
    return Sampled(tuple(times[at] for at in wanted), duration, _pictures(path, wanted, max_pixels, until))


def _pictures(path: str, wanted: Sequence[int], most: int, until: float) -> Iterator[Image.Image]:
    count = 0
    for frame in _frames(path, wanted, until):
        count += 1
        yield _reduced(frame, most)
    if count != len(wanted):
        raise BadImage("cannot be decoded twice alike")


def choose(times: Sequence[int], fps: float, most: int) -> tuple[list[int], int]:
    """The numbers of the frames to take of a video whose frames are shown at `times`, in milliseconds from 0,
    and how long it lasts.

    As evenly as they come, an even number: processors see frames by two. At each moment the frame that is
    shown then.
    """
    duration = times[-1] + round(times[-1] / (len(times) - 1))
    count = min(math.floor(duration / 1000 * fps), len(times), most)
    count = max(2, count - count % 2)
    return [bisect.bisect_right(times, duration * at / count) - 1 for at in range(count)], duration


def _check_container(head: bytes) -> None:
    if not head:
        raise BadImage("the file is empty")
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    # MP4 and MOV (ISO/IEC 14496-12) begin with a box of one of these types, Matroska with an EBML header.
    is_mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    if not (is_avi or is_mp4 or head[:4] == b"\x1a\x45\xdf\xa3"):
        raise BadImage(_NO_CONTAINER)


def _opened(path: str) -> cv2.VideoCapture:
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise BadImage("cannot be decoded: it is broken, cut off, or of a kind that FFmpeg does not know")
    return video


def _times(path: str, limits: ImageLimits, until: float) -> list[int]:
    """When each frame is shown, in milliseconds from the first."""
    video = _opened(path)
    try:
        width, height = (
            int(video.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        _check_size(width, height, limits)
        promised = video.get(cv2.CAP_PROP_FRAME_COUNT)
        shown: list[float] = []
        while video.grab():
            _check_clock(until)
            shown.append(video.get(cv2.CAP_PROP_POS_MSEC))
    finally:
        video.release()
    if len(shown) < promised * _LEAST_SHARE:
        raise BadImage(f"breaks off after {len(shown):,} of {promised:,.0f} frames")
    if len(shown) < 2:
        raise BadImage("has fewer than two frames: hand it over as an image")
    return from_first(shown)


def from_first(shown: Sequence[float]) -> list[int]:
    """Times in milliseconds counted from the first. Raises BadImage where they do not go on."""
    times = [round(each - shown[0]) for each in shown]
    if any(later < earlier for earlier, later in itertools.pairwise(times)) or times[-1] <= 0:
        raise BadImage("does not say when its frames are shown")
    return times


def _check_clock(until: float) -> None:
    if time.monotonic() > until:
        raise BadImage("takes too long to decode: cut it into shorter clips")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise BadImage(f"frames of {width} x {height} pixels, {limits.max_pixels:,} in all are allowed")
    if min(width, height) < limits.min_edge:
        raise BadImage(
            f"frames of {width} x {height} pixels: an edge of at least {limits.min_edge} is needed"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"frames of {width} x {height} pixels: longer than {MAX_ASPECT}:1")


def _frames(path: str, wanted: Sequence[int], until: float) -> Iterator[NDArray[np.uint8]]:
    """The frames of these numbers, which may repeat, in BGR; OpenCV gives all the size of the first."""
    video = _opened(path)
    number, frame = -1, np.zeros((0, 0, 3), np.uint8)
    try:
        for at in wanted:
            while number < at:
                _check_clock(until)
                if not video.grab():
                    return
                number += 1
                if number == at:
                    read, frame = video.retrieve()
                    if not read:
                        return
            yield frame.astype(np.uint8, copy=False)
    finally:
        video.release()


def _reduced(frame: NDArray[np.uint8], most: int) -> Image.Image:
    """A frame in RGB, reduced to `most` pixels where it has more."""
    picture = Image.fromarray(frame[:, :, ::-1])
    width, height = picture.size
    if width * height > most:
        scale = math.sqrt(most / (width * height))
        edges = max(1, int(width * scale)), max(1, int(height * scale))
        picture = picture.resize(edges, Image.Resampling.BICUBIC)
    return picture
