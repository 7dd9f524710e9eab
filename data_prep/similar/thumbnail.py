"""The perceptual fingerprint of an image: 64 x 64 grey values, taken from a reduced decode.

Everything else (hashes, alignment, verdict) is computed from this thumbnail and the size of the original, so
4 KB an image are all that an index or a sealed exam has to keep.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_prep.similar.grey import SIDE, grey, small_grey
from lensmith.images import FORMATS, MAX_ASPECT, BadImage, ImageLimits

# libjpeg decodes at 1/2, 1/4 or 1/8 for a fraction of the work; twice the side leaves enough detail.
_REDUCED_EDGE = 2 * SIDE

Thumbnails = npt.NDArray[np.uint8]


def open_reduced(data: bytes, limits: ImageLimits) -> tuple[Image.Image, tuple[int, int]]:
    """Decode `data` in grey, a JPEG at the smallest scale that keeps both edges at 128 pixels or more.

    Returns the picture (mode "L", not turned upright: the comparison does not depend on it) and the full
    (width, height) as stored. Every byte of the picture is read: truncated files raise, as in a full decode.
    Raises BadImage as lensmith.images.decode_image does, except that animated files give their first frame.
    """
    if not data:
        raise BadImage("the file is empty")
    if len(data) > limits.max_bytes:
        raise BadImage(f"the file has {len(data):,} bytes, {limits.max_bytes:,} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > limits.max_pixels or min(width, height) < limits.min_edge:
                raise BadImage(f"{width} x {height} pixels are not within the limits")
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise BadImage(f"{width} x {height} pixels: longer than {MAX_ASPECT}:1")
            image.draft("L", (_REDUCED_EDGE, _REDUCED_EDGE))
            image.load()
            return grey(image), (width, height)
    except BadImage:
        raise
    except Exception as error:  # Pillow raises seven kinds on hostile files; each means "cannot decode".
        raise BadImage(f"cannot be decoded ({type(error).__name__}: {str(error)[:120]})") from error


def thumbnail(image: Image.Image) -> Thumbnails:
    """The picture as uint8 [64, 64] grey (ITU-R 601-2 luma), stretched to a square.

    Give it a reduced picture or the full one: both give the same values but for a few grey levels.
    """
    return np.asarray(small_grey(image), np.uint8)


def fingerprint(data: bytes, limits: ImageLimits) -> tuple[Thumbnails, tuple[int, int]]:
    """Thumbnail uint8 [64, 64] of an encoded image and its full (width, height). Raises BadImage."""
    image, size = open_reduced(data, limits)
    return thumbnail(image), size
