"""Decoding what people hand over: upright, in RGB, under limits, and digested by what it shows."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.images import BadImage, ImageLimits, decode_image, encode_png, pixel_digest

LIMITS = ImageLimits()
ORIENTATION = 0x0112


def scene(width: int = 40, height: int = 24) -> Image.Image:
    """No two corners alike, in flat areas that JPEG keeps apart."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (230, 20, 20)
    pixels[: height // 2, width // 2 :] = (20, 230, 20)
    pixels[height // 2 :, : width // 2] = (20, 20, 230)
    pixels[height // 2 :, width // 2 :] = (230, 230, 20)
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data, LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_every_accepted_format(kind: str) -> None:
    found = pixels(saved(scene(), kind, quality=95))
    assert abs(found - np.asarray(scene()).astype(int)).mean() < 6


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_orientation_is_turned_upright(orientation: int, undo: Image.Transpose) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    # The stored pixels lie so that the orientation, applied by a viewer, shows the scene.
    found = pixels(saved(scene().transpose(undo), "PNG", exif=exif))
    assert (found == np.asarray(scene())).all()


def test_upright_png_keeps_no_metadata() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "A camera"
    again = Image.open(io.BytesIO(encode_png(decode_image(saved(scene(), "JPEG", exif=exif), LIMITS))))
    assert dict(again.getexif()) == {}
    assert again.size == (24, 40)


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert (pixels(saved(clear, "PNG")) == 255).all()
    assert (pixels(saved(Image.new("LA", (16, 16), (0, 128)), "PNG")) == 127).all()
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([10, 20, 30] * 256)
    assert (pixels(saved(palette, "PNG", transparency=0)) == 255).all()
    assert (pixels(saved(palette, "PNG")) == [10, 20, 30]).all()


def test_other_modes() -> None:
    ramp = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        found = pixels(saved(Image.fromarray(ramp), kind))[..., 0]
        assert abs(found - ramp // 256).max() <= 1
    assert abs(pixels(saved(scene().convert("CMYK"), "JPEG", quality=95)) - np.asarray(scene())).mean() < 8
    black = Image.new("1", (16, 16), 0)
    assert (pixels(saved(black, "PNG")) == 0).all()


def test_a_photograph_with_a_depth_map_is_its_first_frame() -> None:
    data = saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 24))], quality=95)
    assert abs(pixels(data) - np.asarray(scene())).mean() < 6


def bomb(width: int, height: int) -> bytes:
    """A PNG header that promises an enormous image."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"<svg></svg>", "not an image in one of the formats PNG"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n", "not an image"),
    "half a JPEG": (saved(scene(200, 200), "JPEG")[:-400], "truncated"),
    "half a PNG": (saved(scene(200, 200), "PNG")[:-60], "cannot be decoded"),
    "animated GIF": (
        saved(scene(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 24))]),
        "several",
    ),
    "animated PNG": (
        saved(scene(), "PNG", save_all=True, append_images=[Image.new("RGB", (40, 24))]),
        "several",
    ),
    "two pages": (saved(scene(), "TIFF", save_all=True, append_images=[scene()]), "several"),
    "bomb": (bomb(12_000, 12_000), "12000 x 12000 pixels"),
    "large bomb": (bomb(100_000, 100_000), "decoded"),
    "dot": (saved(Image.new("RGB", (1, 1)), "PNG"), "an edge of at least 8"),
    "thread": (saved(Image.new("RGB", (8 * 201, 8)), "PNG"), "longer than 200:1"),
    "floats": (saved(Image.new("F", (16, 16)), "TIFF"), "floating-point"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words_that_are_the_same_every_time(name: str) -> None:
    data, said = REFUSED[name]
    messages = set()
    for _ in range(2):
        with pytest.raises(BadImage, match=said) as caught:
            decode_image(data, LIMITS)
        messages.add(caught.value.summary)
    assert len(messages) == 1
    assert "0x" not in messages.pop()


def test_limits() -> None:
    data = saved(scene(), "PNG")
    with pytest.raises(BadImage, match="bytes"):
        decode_image(data, ImageLimits(max_bytes=len(data) - 1))
    with pytest.raises(BadImage, match="pixels"):
        decode_image(data, ImageLimits(max_pixels=40 * 24 - 1))
    with pytest.raises(BadImage, match="edge"):
        decode_image(data, ImageLimits(min_edge=25))
    assert decode_image(data, ImageLimits(len(data), 40 * 24, 24)).size == (40, 24)


@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]), st.data())
def test_damaged_files_raise_bad_image_or_decode(noise: bytes, kind: str, data: st.DataObject) -> None:
    whole = bytearray(saved(scene(), kind))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place : place + len(noise)] = noise
    with contextlib.suppress(BadImage):
        assert decode_image(bytes(whole), LIMITS).mode == "RGB"


def test_digest_is_of_what_is_shown() -> None:
    png = decode_image(saved(scene(), "PNG"), LIMITS)
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    turned = saved(scene().transpose(Image.Transpose.ROTATE_180), "BMP")
    stored = saved(scene().transpose(Image.Transpose.ROTATE_180), "PNG", exif=exif)
    assert pixel_digest(decode_image(stored, LIMITS)) == pixel_digest(png)
    assert pixel_digest(decode_image(turned, LIMITS)) != pixel_digest(png)
    assert pixel_digest(decode_image(encode_png(png), LIMITS)) == pixel_digest(png)
    assert pixel_digest(Image.new("RGB", (8, 16))) != pixel_digest(Image.new("RGB", (16, 8)))
    nearly = png.copy()
    nearly.putpixel((3, 3), (0, 0, 1))
    assert pixel_digest(nearly) != pixel_digest(png)
