"""Decoding images that people hand over: under limits, upright, and digested by what they show."""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from lensmith import tiff
from lensmith.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
# Beyond 200:1 the processors of the Qwen and GLM families raise (transformers `smart_resize`).
MAX_ASPECT = 200


@dataclass(frozen=True)
class ImageLimits:
    """What is accepted: encoded size in bytes, decoded size in pixels, shortest edge in pixels."""

    max_bytes: int = 50_000_000
    max_pixels: int = 100_000_000
    min_edge: int = 8


# Of images that we wrote ourselves: what was handed over may have weighed less, as a JPEG.
STORED = ImageLimits(max_bytes=sys.maxsize, max_pixels=sys.maxsize, min_edge=1)


class BadImage(InputError):
    """An image that cannot be used; the summary says why in plain words."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image without metadata, and the format its content has (one of FORMATS)."""

    image: Image.Image
    format: str


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The image of `decode`. Raises BadImage."""
    return decode(data, limits).image


def decode(data: bytes, limits: ImageLimits) -> Decoded:
    """Decode `data` completely, turn it upright by its EXIF orientation, and give it in RGB.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits, and colour profiles are ignored, as the
    models' own processors do. The name of the file plays no part: the content says what it is. Raises
    BadImage for bytes that are empty, too large, truncated, animated, of another format, too thin, or that
    Pillow cannot decode; where memory ran out, a MemoryError is its cause.
    """
    with plain_words(limits):
        return decode_opened(open_image(data, limits))


def decode_stored(png: bytes) -> Image.Image:
    """An image that `encode_png` wrote, upright RGB. Raises BadImage where it is no longer one."""
    return decode_image(png, STORED)


def open_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Everything that can be checked before pixels are decoded; to be called within `plain_words`."""
    if not data:
        raise BadImage("the file is empty")
    if len(data) > limits.max_bytes:
        raise BadImage(f"the file has {len(data):,} bytes, {limits.max_bytes:,} are allowed")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_shape(image, limits)
    if image.format == "TIFF" and not tiff.is_whole(data):
        raise BadImage("the file is truncated, or says wrongly where its pixels lie")
    return image


def decode_opened(image: Image.Image) -> Decoded:
    """The rest of `decode` after `open_image`; to be called within `plain_words`."""
    # verify() passes truncated files; only a full decode shows them.
    image.load()
    upright = _to_rgb(ImageOps.exif_transpose(image))
    # Profiles, comments and the like would be written again with the pixels.
    upright.info = {}
    return Decoded(upright, content_format(image))


def content_format(image: Image.Image) -> str:
    """The format of an opened image, one of FORMATS: a phone's MPO is a JPEG with more behind it."""
    return "JPEG" if image.format == "MPO" else str(image.format)


@contextlib.contextmanager
def plain_words(limits: ImageLimits) -> Iterator[None]:
    """Raise BadImage for whatever Pillow raises inside, and keep its warnings to ourselves."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("takes more memory to decode than is allowed") from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"promises too many pixels, {limits.max_pixels:,} in all are allowed") from error
    except UnidentifiedImageError as error:
        # Pillow's own message names an address in memory: it would make reports differ from run to run.
        raise BadImage(f"is not an image in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises seven kinds on hostile files; each means "cannot decode".
        raise BadImage(f"cannot be decoded ({type(error).__name__}: {str(error)[:120]})") from error


def _check_shape(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise BadImage(f"{width} x {height} pixels, {limits.max_pixels:,} in all are allowed")
    if min(width, height) < limits.min_edge:
        raise BadImage(f"{width} x {height} pixels: an edge of at least {limits.min_edge} is needed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width} x {height} pixels: longer than {MAX_ASPECT}:1")
    if _has_second_frame(image):
        raise BadImage("holds several frames or pages: give one image a file")
    if image.mode == "F":
        raise BadImage("has floating-point pixels: save it with 8 or 16 bits a channel")


def _has_second_frame(image: Image.Image) -> bool:
    # Phones append a depth map or a preview to their JPEGs (MPO); the first frame is the photograph.
    if image.format == "MPO":
        return False
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits of either byte order, or 32: only the last kind knows the operations that follow.
        deep = image.convert("I")
        lowest, highest = deep.getextrema()
        if not (_is_16_bit(lowest) and _is_16_bit(highest)):
            raise BadImage("has more than 16 bits a channel: save it with 8 or 16")
        return deep.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _is_16_bit(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 0xFFFF


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 over size and RGB pixels of an upright image: equal for the same picture in any container."""
    state = hashlib.sha256(f"{image.width}x{image.height}".encode())
    state.update(image.tobytes())
    return state.hexdigest()


def encode_png(image: Image.Image) -> bytes:
    """The image as PNG, without any metadata: what datasets keep and what is sent to the engine."""
    stream = io.BytesIO()
    # zlib level 2: photographs take a quarter of the time of the usual 6 and weigh 2% more.
    image.save(stream, "PNG", compress_level=2, icc_profile=None)
    return stream.getvalue()
