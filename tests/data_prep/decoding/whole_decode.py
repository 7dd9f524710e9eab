"""The plainest work on an image: decode all of it and say what it is."""

from __future__ import annotations

from dataclasses import dataclass

from lensmith.images import ImageLimits, decode, pixel_digest

PICTURE_FACTS = "tests.data_prep.decoding.whole_decode:picture_facts"


@dataclass(frozen=True)
class PictureFacts:
    """An image after a full decode: size of the upright image in pixels, format by content, pixel digest."""

    width: int
    height: int
    format: str
    digest: str


def picture_facts(data: bytes, limits: ImageLimits) -> PictureFacts:
    """The facts of an encoded image. Raises BadImage."""
    decoded = decode(data, limits)
    image = decoded.image
    return PictureFacts(image.width, image.height, decoded.format, pixel_digest(image))
