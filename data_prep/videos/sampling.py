"""What a worker process does with a video: decodes it under limits and takes frames of it. Imported by name.

Decoded by the FFmpeg that OpenCV brings along. Only containers that hold their own streams are opened, told
by their first bytes: playlists, which name files and addresses, are not. The pixels are those of the file's
frames, turned upright as the file says; sound and metadata are left behind.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
from collections.abc import Iterator, Sequence

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.decoding.work import Drawing
from data_prep.videos.film import Film
from lensmith.images import MAX_ASPECT, BadImage, ImageLimits, encode_png

TAKE = "data_prep.videos.sampling:take"
SAMPLE = "data_prep.videos.sampling:sample"
# A file that breaks off shows fewer frames than its index promises; the index of some containers is a guess.
_LEAST_SHARE = 0.95
_NO_CONTAINER = "is not a video in one of the containers MP4 (MOV), Matroska (WebM) and AVI"


def take(film: bytes, limits: ImageLimits) -> Film:
    """What `sample` drew. Raises BadImage where it is no longer that."""
    try:
        return msgspec.msgpack.decode(film, type=Film)
    except msgspec.MsgspecError as error:
        raise BadImage("cannot be passed on") from error


def sample(asked: Drawing, limits: ImageLimits) -> bytes:
    """A `Film` of the video `asked.file`, as MessagePack.

    Its settings are those of the recipe's data.video by their names. The video is decoded twice: once to know
    when its frames are shown, whatever its header says, and once for those that are taken. Raises OSError
    where it cannot be read, and BadImage where it is no whole video or its frames are too large or too small.
    """
    # Whatever a file asks for: FFmpeg opens no address.
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "protocol_whitelist;file"
    descriptor = os.open(asked.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_container(os.pread(descriptor, 12, 0))
        # By number: the file that was looked at, and no name that FFmpeg would guess a format from.
        times = _times(f"/proc/self/fd/{descriptor}", limits)
        wanted, duration = choose(times, asked.settings["fps"], asked.settings["max_frames"])
        most = asked.settings["max_pixels"]
        frames = tuple(_png(each, most) for each in _frames(f"/proc/self/fd/{descriptor}", wanted))
    finally:
        os.close(descriptor)
    if len(frames) != len(wanted):
        raise BadImage("cannot be decoded twice alike")
    return msgspec.msgpack.encode(Film(frames, tuple(times[at] for at in wanted), duration))


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


def _times(path: str, limits: ImageLimits) -> list[int]:
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


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise BadImage(f"frames of {width} x {height} pixels, {limits.max_pixels:,} in all are allowed")
    if min(width, height) < limits.min_edge:
        raise BadImage(
            f"frames of {width} x {height} pixels: an edge of at least {limits.min_edge} is needed"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"frames of {width} x {height} pixels: longer than {MAX_ASPECT}:1")


def _frames(path: str, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """The frames of these numbers, which may repeat, in BGR; OpenCV gives all the size of the first."""
    video = _opened(path)
    number, frame = -1, np.zeros((0, 0, 3), np.uint8)
    try:
        for at in wanted:
            while number < at:
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


def _png(frame: NDArray[np.uint8], most: int) -> bytes:
    """A frame as PNG, reduced to `most` pixels where it has more."""
    picture = Image.fromarray(frame[:, :, ::-1])
    width, height = picture.size
    if width * height > most:
        scale = math.sqrt(most / (width * height))
        edges = max(1, int(width * scale)), max(1, int(height * scale))
        picture = picture.resize(edges, Image.Resampling.BICUBIC)
    return encode_png(picture)
