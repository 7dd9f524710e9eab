"""A picture in grey, and small: what a thumbnail is made of. Quick to import: workers need no numpy."""

from __future__ import annotations

from PIL import Image

# Of a thumbnail, in pixels.
SIDE = 64
_WHITE = 255


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
