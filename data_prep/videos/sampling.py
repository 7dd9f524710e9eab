"""What a worker process does with a video: takes frames of it under limits. Imported by name."""

from __future__ import annotations

import os

from data_prep.decoding.work import Drawing
from lensmith import film_sampling
from lensmith.film import Film, pack, unpack
from lensmith.images import ImageLimits, encode_png

TAKE = "data_prep.videos.sampling:take"
SAMPLE = "data_prep.videos.sampling:sample"


def take(film: bytes, limits: ImageLimits) -> Film:
    """What `sample` drew. Raises BadImage where it is no longer that."""
    return unpack(film)


def sample(asked: Drawing, limits: ImageLimits) -> bytes:
    """A packed `Film` of the video `asked.file`.

    Its settings are those of the recipe's data.video by their names. Raises OSError where it cannot be read,
    and BadImage where it is no whole video or its frames are too large or too small.
    """
    most = asked.settings
    descriptor = os.open(asked.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = film_sampling.sample(descriptor, most["fps"], most["max_frames"], most["max_pixels"], limits)
        frames = tuple(encode_png(each) for each in found.pictures)
    finally:
        os.close(descriptor)
    return pack(Film(frames, found.times, found.duration))
