"""Decoding images that people hand over: under limits, upright, and digested by what they show."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

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


class BadImage(InputError):
    """An image that cannot be used; the summary says why in plain words."""


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decode `data` completely, turn it upright by its EXIF orientation, and give it in RGB.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits. Raises BadImage for bytes that are
    empty, too large, truncated, animated, of another format, too thin, or that Pillow cannot decode.
    """
    if not data:
        raise BadImage("the file is empty")
    if len(data) > limits.max_bytes:
        raise BadImage(f"the file has {len(data):,} bytes, {limits.max_bytes:,} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_shape(image, limits)
            # verify() passes truncated files; only a full decode shows them.
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
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
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 over size and RGB pixels of an upright image: equal for the same picture in any container."""
    state = hashlib.sha256(f"{image.width}x{image.height}".encode())
    state.update(image.tobytes())
    return state.hexdigest()


def encode_png(image: Image.Image) -> bytes:
    """The image as PNG, without any metadata: what datasets keep and what is sent to the engine."""
    stream = io.BytesIO()
    # zlib level 3: a third less time than the usual 6, and scans come out no larger.
    image.save(stream, "PNG", compress_level=3)
    return stream.getvalue()
