"""Frames that were taken of a video, and the bytes in which they go to other processes and to an engine."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import msgspec

from lensmith.images import BadImage

# What `pack` gives, as the media type of a data URL.
MEDIA_TYPE = "video/x-lensmith-film"
# No container of videos begins so.
_HEAD = b"lensmith film 1\n"


@dataclass(frozen=True)
class Film:
    """Frames of a video as PNG, in the order of time; when each is shown, and how long the video lasts, in
    milliseconds from its first frame."""

    frames: tuple[bytes, ...]
    times: tuple[int, ...]
    duration: int


def pack(film: Film) -> bytes:
    """The film as bytes: a head of its own, then MessagePack."""
    return _HEAD + msgspec.msgpack.encode(film)


def is_packed(data: bytes) -> bool:
    """Whether these are the bytes of a film, and not of a video."""
    return data.startswith(_HEAD)


def unpack(data: bytes) -> Film:
    """The inverse of `pack`; pictures are not looked at.

    Raises BadImage where it is no film, has no frames, or does not say of each when it is shown.
    """
    if not is_packed(data):
        raise BadImage("is not a film")
    try:
        film = msgspec.msgpack.decode(data[len(_HEAD) :], type=Film)
    except msgspec.MsgspecError as error:
        raise BadImage("is a film that cannot be read") from error
    moments = (0, *film.times, film.duration)
    if not film.frames or len(film.frames) != len(film.times):
        raise BadImage(f"is a film of {len(film.frames)} frames and {len(film.times)} times")
    if any(later < earlier for earlier, later in itertools.pairwise(moments)):
        raise BadImage("is a film whose times do not go on")
    return film
