"""Rows that show videos: noise, as frames that were taken before, with their times; and what is not as it was
taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Picture

from lensmith.film import Film
from lensmith.images import decode_stored, encode_png, pixel_digest
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Part, Sample, Text, Video

Size = tuple[int, int]
SAMPLING = {"fps": 2, "max_frames": 8, "max_pixels": 20_000}


def film_row(name: str, *shown: Sequence[float] | Size | str) -> Row:
    """A row that shows in this order videos (the seconds of their frames as a list), images (their size as a
    pair) and texts."""
    parts: list[Part] = []
    pictures: list[bytes] = []

    def draw(size: Size) -> Image:
        path = f"{name} {len(pictures)}"
        pictures.append(noise(path, size))
        return Image(path, pixel_digest(decode_stored(pictures[-1])), size)

    for each in shown:
        if isinstance(each, str):
            parts.append(Text(each))
        elif isinstance(each, tuple):
            parts.append(draw(each))
        else:
            frames = tuple(draw((96, 64)) for _ in each)
            parts.append(Video(f"{name}.mp4", frames, tuple(each), each[-1] + 0.5))
    sample = Sample(name, name, (Message("user", tuple(parts)), Message("assistant", (Text("seven"),))))
    return Row(sample, tuple(pictures))


def film_rows(most: int | None = None) -> list[Row]:
    """One video at even times, or at its own beside an image; a picture that stands still for a while; two
    videos, unless `most` a row may be shown."""
    rows = [
        film_row("even", [0, 0.5, 1, 1.5], "Which digits?"),
        film_row("odd", (90, 60), "See ", [0, 1.234, 2.5, 71.05, 100, 163.9], "When?"),
        film_row("still", [0, 0, 0, 4, 4, 7.5], "What moves?"),
        film_row("two", [0, 3.3], (90, 60), "then", [0.0, 0.25, 9, 12.125], "Which?"),
    ]
    return rows if most is None else [row for row in rows if len(row.sample.videos) <= most]


def noise(name: str, size: Size) -> bytes:
    """Noise as a PNG: the same for a name in every process."""
    width, height = size
    values = np.random.default_rng(list(name.encode())).normal(128, 60, (height, width, 3))
    return encode_png(Picture.fromarray(values.clip(0, 255).astype(np.uint8)))


def frames_dropped(film: Film) -> Film:
    """The last two, where there are more."""
    most = max(2, len(film.frames) - 2)
    return Film(film.frames[:most], film.times[:most], film.duration)


def times_shifted(film: Film) -> Film:
    return Film(film.frames, tuple(each + 300 for each in film.times), film.duration + 300)


def other_frames(film: Film) -> Film:
    """As another way of sampling takes them: as many, at times that are said to be the same."""
    return Film((*film.frames[1:], film.frames[0]), film.times, film.duration)
