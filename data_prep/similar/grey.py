"""A picture in grey, and small: thumbnail and detail. Quick to import: workers need no numpy."""

from __future__ import annotations

import io

from PIL import Image

# Of a thumbnail, in pixels.
SIDE = 64
# Of a detail, in pixels: the lines of an A4 page stay apart. Measured with 128: cropped pages of one template
# differ from themselves by as much as pages with one other line do.
FINE_SIDE = 192
# Of 100: 11 KB for a dense page. Compression leaves 4 grey levels (standard deviation).
_QUALITY = 85
_WHITE = 255


def fingerprint(image: Image.Image) -> bytes:
    """The thumbnail, 64 rows of 64 bytes of grey, and behind it the detail: a JPEG of 192 x 192 pixels.

    A picture with an edge below 192 pixels has no detail.
    """
    thumbnail = small_grey(image).tobytes()
    if min(image.size) < FINE_SIDE:
        return thumbnail
    stream = io.BytesIO()
    fine = grey(image).resize((FINE_SIDE, FINE_SIDE), Image.Resampling.BICUBIC, None, 2.0)
    fine.save(stream, "JPEG", quality=_QUALITY)
    return thumbnail + stream.getvalue()


def small_grey(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    """The thumbnail as a picture of mode "L"; `box` is the part that counts: left, top, right, bottom."""
    # Colours can be mixed at any size; what is transparent, deep or indexed has to be grey before.
    picture = image if image.mode == "RGB" and "transparency" not in image.info else grey(image)
    # Lanczos keeps the thumbnail band-limited, so that it can be shifted by parts of a pixel later.
    return grey(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box, 3.0))


def grey(image: Image.Image) -> Image.Image:
    """The picture in mode "L", laid on white where it is transparent."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return image.point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("LA")
        white = Image.new("L", layered.size, _WHITE)
        white.paste(layered.getchannel(0), mask=layered.getchannel(1))
        return white
    return image.convert("L")
