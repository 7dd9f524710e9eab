"""A sample that states, of each picture it shows, the digest of its pixels and its upright size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from data_prep.refusal import Flaw
from data_prep.seen import Seen
from lensmith.sample import Image, Part, Sample, Video


def with_pictures(sample: Sample, shown: Sequence[Seen | Flaw]) -> Sample:
    """The sample with digest and upright size of every image that could be opened."""
    waiting = iter(shown)

    def known(part: Part) -> Part:
        match part:
            case Image():
                return picture(part)
            case Video():
                return replace(part, frames=tuple(picture(frame) for frame in part.frames))
            case _:
                return part

    def picture(image: Image) -> Image:
        seen = next(waiting)
        if isinstance(seen, Flaw):
            return image
        return replace(image, digest=seen.identity.hex(), size=(seen.width, seen.height))

    messages = tuple(
        replace(message, parts=tuple(known(part) for part in message.parts)) for message in sample.messages
    )
    return replace(sample, messages=messages)
