"""How the engine reads videos: the frames that data preparation took, or those that it would take.

vLLM's own loaders take frames at another rate, by rules of their own for each family, and cannot be told when
the frames of a film are shown. This one stands in vLLM's register of loaders (0.32, multimodal/video.py),
where `api_server` puts it and `--media-io-kwargs` names it; a request cannot choose another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lensmith.film import is_packed, unpack
from lensmith.images import BadImage, ImageLimits, decode_image

# Its name in vLLM's register.
LOADER = "lensmith_film"
# vLLM counts frames by a rate: here one a microsecond.
CLOCK = 1_000_000.0
_MICROSECONDS = 1000
# An hour of 1080p video decodes in less on one core: a request may not hold up others for longer.
_SECONDS = 120.0


class FilmLoader:
    """A loader as vLLM's register knows them."""

    @classmethod
    def load_bytes(
        cls,
        data: bytes,
        *,
        num_frames: int,
        fps: float,
        max_frames: int,
        max_pixels: int,
        max_bytes: int,
        max_decoded_pixels: int,
        distinct: bool,
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Frames of a film or a video, uint8 [frames, height, width, 3] in RGB, and what vLLM's processors
        read of them.

        num_frames: not used; 0 in a profile, for which vLLM refuses frames that come as a list of JPEGs, of
        which nobody knows the times. fps, max_frames, max_pixels: as the recipe's data.video; a film has to
        keep the last two. max_bytes: of what was sent. max_decoded_pixels: of a frame of a video. distinct:
        no two frames have one time, see `VideoForm.distinct`. Raises ValueError, which vLLM answers with 400.
        """
        if len(data) > max_bytes:
            raise ValueError(f"the video has {len(data):,} bytes, {max_bytes:,} are allowed")
        try:
            if is_packed(data):
                film = unpack(data)
                if len(film.frames) > max_frames:
                    raise BadImage(f"has {len(film.frames)} frames, {max_frames} are allowed")
                limits = ImageLimits(max_bytes, max_pixels, min_edge=1)
                frames = _stacked(decode_image(each, limits) for each in film.frames)
                times, duration = film.times, film.duration
            else:
                frames, times, duration = _sampled(data, fps, max_frames, max_pixels, max_decoded_pixels)
        except BadImage as error:
            raise ValueError(f"the video {error.summary}") from error
        at = [each * _MICROSECONDS for each in times]
        if distinct:
            at = _apart(at)
        return frames, {
            "total_num_frames": max(1, duration * _MICROSECONDS, at[-1] + 1),
            "fps": CLOCK,
            "duration": duration / 1000,
            "video_backend": LOADER,
            "frames_indices": at,
            # The processor takes none of its own.
            "do_sample_frames": False,
        }


def _sampled(
    data: bytes, fps: float, max_frames: int, max_pixels: int, max_decoded_pixels: int
) -> tuple[NDArray[np.uint8], tuple[int, ...], int]:
    # OpenCV takes part in this alone.
    from lensmith.film_sampling import sample

    limits = ImageLimits(max_pixels=max_decoded_pixels)
    descriptor = os.memfd_create("video", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        found = sample(descriptor, fps, max_frames, max_pixels, limits, _SECONDS)
        return _stacked(found.pictures), found.times, found.duration
    finally:
        os.close(descriptor)


def _stacked(pictures: Iterable[Image.Image]) -> NDArray[np.uint8]:
    frames = [np.asarray(each) for each in pictures]
    if len({each.shape for each in frames}) > 1:
        raise BadImage("has frames of several sizes")
    return np.stack(frames)


def _apart(times: list[int]) -> list[int]:
    """Times of which each that is there already is the next microsecond."""
    for at in range(1, len(times)):
        times[at] = max(times[at], times[at - 1] + 1)
    return times
