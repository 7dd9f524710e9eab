"""What is kept of every picture: size, format and thumbnail, by the cheapest decode that proves it whole."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ExifTags, Image, ImageFile, ImageOps

from data_prep.reduced import png, webp
from data_prep.sight import file_digest
from data_prep.similar.grey import SIDE, small_grey
from lensmith.images import ImageLimits, content_format, decode_opened, open_image, plain_words

# libjpeg decodes at 1/2, 1/4 or 1/8 for a fraction of the work; twice the side leaves enough detail.
_REDUCED_EDGE = 2 * SIDE
_ORIENTATIONS = range(1, 9)
# Those that swap width and height.
_TRANSPOSED = (5, 6, 7, 8)


@dataclass(frozen=True)
class Facts:
    """Size in pixels of the upright picture, format (one of lensmith.images.FORMATS), thumbnail and digest.

    `file` are 16 bytes of SHA-256 over the encoded bytes.
    The thumbnail are 64 rows of 64 bytes of grey, `np.frombuffer(each.thumbnail, np.uint8).reshape(64, 64)`:
    what data_prep.similar compares.
    """

    width: int
    height: int
    format: str
    thumbnail: bytes
    file: bytes


def look(data: bytes, limits: ImageLimits) -> Facts:
    """The facts of an encoded image. Raises BadImage exactly where lensmith.images.decode does.

    Work for data_prep.decoding.DecoderPool: LOOK is its name.
    """
    with plain_words(limits):
        image = open_image(data, limits)
        size = image.size
        small = _small(image, data)
        if small is None:
            upright = decode_opened(image).image
            width, height = upright.size
            thumbnail = small_grey(upright)
        else:
            turned = small.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED
            width, height = size[::-1] if turned else size
            thumbnail = ImageOps.exif_transpose(small)
        return Facts(width, height, content_format(image), thumbnail.tobytes(), file_digest(data))


LOOK = f"{look.__module__}:{look.__name__}"


def _small(image: Image.Image, data: bytes) -> Image.Image | None:
    """The thumbnail of an image that can be decoded cheaply, otherwise None; its EXIF turns it upright."""
    match image.format:
        case "JPEG" | "MPO":
            # Every byte is still read: a truncated file raises as in a full decode.
            drafted = image.draft("L", (_REDUCED_EDGE, _REDUCED_EDGE))
            if isinstance(image, ImageFile.ImageFile):
                # All of it at once: libjpeg slows down before the end of every block that it is given.
                image.decodermaxblock = len(data)
            image.load()
            # Raises for metadata that cannot be written again, as in a full decode.
            ImageOps.exif_transpose(image)
            # The last block of a row or column may be more than half empty.
            small = small_grey(image, None if drafted is None else drafted[1])
            # What counts is how the opened image read its metadata: reading it again may raise.
            small.info = {}
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            if orientation in _ORIENTATIONS:
                small.getexif()[ExifTags.Base.Orientation] = int(orientation)
            return small
        case "PNG":
            picture = png.picture(data)
            if picture is None:
                return None
            small = small_grey(picture)
            small.info = image.info
            return small
        case "WEBP":
            # One that comes with metadata is left to Pillow.
            luma = webp.luma(data)
            return None if luma is None else webp.grey(small_grey(luma))
        case _:
            return None
