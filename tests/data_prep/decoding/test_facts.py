"""The cheap look judges as the full decode does: Pillow's test images, whole, cut and with flipped bytes."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request
from data_prep.facts import LOOK, Facts, look
from data_prep.reduced import png, webp
from data_prep.refusal import Flaw
from data_prep.sight import file_digest
from data_prep.similar.grey import small_grey
from lensmith.images import BadImage, ImageLimits, decode
from tests.data_prep.decoding.test_corpus import Corpus, corpus, flipped, truncations
from tests.data_prep.similar.pictures import encoded, photographs, resized

__all__ = ["corpus"]

LIMITS = ImageLimits()
WHOLE = f"{__name__}:by_full_decode"
PLAIN = ("PNG", "JPEG", "WEBP")


def by_full_decode(data: bytes, limits: ImageLimits) -> Facts:
    """What look should say."""
    decoded = decode(data, limits)
    width, height = decoded.image.size
    return Facts(width, height, decoded.format, small_grey(decoded.image).tobytes(), file_digest(data))


def judged(images: Corpus, work: str) -> dict[str, Facts | Flaw]:
    with DecoderPool(LIMITS, work=work, workers=2) as pool:
        answers = pool.facts(Request(name, data) for name, data in images.items())
        return dict(zip(images, answers, strict=True))


@dataclass(frozen=True)
class Verdict:
    """What must be equal."""

    flaw: str
    size: tuple[int, int]
    format: str


def verdict(answer: Facts | Flaw) -> Verdict:
    if isinstance(answer, Flaw):
        return Verdict(answer.code, (0, 0), "")
    return Verdict("", (answer.width, answer.height), answer.format)


def compare(images: Corpus, *, alike: bool = False) -> tuple[int, int]:
    """How many are accepted and how many refused, by both; `alike`: with thumbnails that are alike."""
    fast, full = judged(images, LOOK), judged(images, WHOLE)
    assert {name: verdict(each) for name, each in fast.items()} == {
        name: verdict(each) for name, each in full.items()
    }
    if alike:
        both = [(each, full[name]) for name, each in fast.items()]
        pairs = [(a, b) for a, b in both if isinstance(a, Facts) and isinstance(b, Facts)]
        assert max(np.abs(grey(a) - grey(b)).mean() for a, b in pairs) < 6
    accepted = sum(isinstance(each, Facts) for each in fast.values())
    return accepted, len(fast) - accepted


def grey(facts: Facts) -> np.ndarray:
    return np.frombuffer(facts.thumbnail, np.uint8).astype(int).reshape(64, 64)


@pytest.mark.slow
def test_every_image_of_the_corpus(corpus: Corpus) -> None:
    accepted, refused = compare(corpus, alike=True)
    assert accepted > 550
    assert refused > 400


def plain_names(corpus: Corpus) -> list[str]:
    names = [name for name in corpus if name.endswith((".png", ".jpg", ".webp", ".mpo"))]
    return [name for name in names if isinstance(judge(corpus[name]), Facts)]


def judge(data: bytes) -> Facts | BadImage:
    try:
        return by_full_decode(data, LIMITS)
    except BadImage as refusal:
        return refusal


@pytest.mark.slow
def test_truncated_images(corpus: Corpus) -> None:
    accepted, refused = compare(dict(truncations(corpus, plain_names(corpus)[::2])))
    assert refused > 2 * accepted


@pytest.mark.slow
def test_flipped_bytes(corpus: Corpus) -> None:
    accepted, refused = compare(dict(flipped(corpus, plain_names(corpus), 500)))
    assert accepted > 50
    assert refused > 100


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("cut", [1, 2, 3, 8, 12, 13, 100, 2000])
def test_photographs_that_end_early(kind: str, cut: int) -> None:
    data = encoded(resized(photographs()[0], 2), kind)[:-cut]
    assert isinstance(judge(data), BadImage) is isinstance(attempt(data), BadImage)


def attempt(data: bytes) -> Facts | BadImage:
    try:
        return look(data, LIMITS)
    except BadImage as refusal:
        return refusal


@pytest.mark.parametrize("kind", [*PLAIN, "TIFF", "BMP", "GIF"])
def test_the_same_thumbnail_from_every_format(kind: str) -> None:
    photo = resized(photographs()[0], 2)
    found = look(encoded(photo, kind), LIMITS)
    assert (found.width, found.height, found.format) == (*photo.size, kind)
    difference = np.abs(grey(found) - np.asarray(small_grey(photo), int))
    # GIF has 256 colours.
    assert difference.mean() < (6 if kind == "GIF" else 1.5)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_size_and_thumbnail(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    resized(photographs()[0], 2).save(stream, kind, exif=exif.tobytes())
    found, expected = look(stream.getvalue(), LIMITS), by_full_decode(stream.getvalue(), LIMITS)
    assert verdict(found) == verdict(expected)
    assert np.abs(grey(found) - grey(expected)).mean() < 1.5


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_the_own_reading_of_a_png_gives_what_pillow_gives(mode: str) -> None:
    photo = photographs()[0].convert(mode)
    if mode in ("LA", "RGBA"):
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    data = encoded(photo, "PNG")
    picture = png.picture(data)
    assert picture is not None
    assert picture.mode == mode
    assert picture.tobytes() == photo.tobytes()


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def joined(parts: list[tuple[bytes, bytes]], wrong_sum: bytes = b"") -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in parts:
        crc = zlib.crc32(kind + body) ^ (kind == wrong_sum)
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)
    return data


def test_a_png_that_is_not_in_order_is_left_to_pillow() -> None:
    header, *pixels, end = chunks(encoded(photographs()[0], "PNG"))
    packed = b"".join(body for _, body in pixels)
    rows = zlib.decompress(packed)
    bad_filter = zlib.compress(b"\x05" + rows[1:])
    width, height = photographs()[0].size
    assert png.picture(joined([header, (b"IDAT", packed), end])) is not None
    other_headers = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, *rest))
        for rest in ((8, 2, 0, 0, 1), (8, 3, 0, 0, 0))
    ]
    for name, data in {
        "checksum": joined([header, (b"IDAT", packed), end], b"IDAT"),
        "checksum of the header": joined([header, (b"IDAT", packed), end], b"IHDR"),
        "adler": joined([header, (b"IDAT", packed[:-1] + bytes([packed[-1] ^ 1])), end]),
        "too short": joined([header, (b"IDAT", zlib.compress(rows[:-1])), end]),
        "too long": joined([header, (b"IDAT", zlib.compress(rows + b"\0")), end]),
        "something after the stream": joined([header, (b"IDAT", packed + b"\0"), end]),
        "filter": joined([header, (b"IDAT", bad_filter), end]),
        "animation": joined([header, (b"acTL", bytes(8)), (b"IDAT", packed), end]),
        "after the pixels": joined([header, (b"IDAT", packed), (b"tEXt", b"a\0b"), end]),
        "after the end": joined([header, (b"IDAT", packed), end]) + b"\0",
        "no end": joined([header, (b"IDAT", packed)]),
        "no pixels": joined([header, end]),
        "interlaced": joined([other_headers[0], (b"IDAT", packed), end]),
        "indexed": joined([other_headers[1], (b"IDAT", packed), end]),
    }.items():
        assert png.picture(data) is None, name
        assert isinstance(judge(data), BadImage) is isinstance(attempt(data), BadImage), name


def test_a_bomb_of_a_png_is_not_unfolded() -> None:
    header = (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    squeeze = zlib.compressobj(9)
    # After a full flush the same bytes are packed alike, which saves packing 300 MB.
    first, each = (squeeze.compress(bytes(1_000_000)) + squeeze.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    checksum = zlib.adler32(bytes(300_000_000)).to_bytes(4, "big")
    packed = first + each * 299 + squeeze.flush()[:-4] + checksum
    assert png.picture(joined([header, (b"IDAT", packed), (b"IEND", b"")])) is None


def test_a_webp_that_is_not_in_order_is_left_to_pillow() -> None:
    photo = photographs()[0]
    data = encoded(photo, "WEBP")
    assert webp.luma(data) is not None
    lossless = io.BytesIO()
    photo.save(lossless, "WEBP", lossless=True)
    for name, other in {
        "short": data[:-1],
        "long": data + b"\0\0",
        "lossless": lossless.getvalue(),
        "no picture": data[:23] + bytes(len(data) - 23),
        "nothing": data[:19],
    }.items():
        assert webp.luma(other) is None, name


def test_limits_are_those_of_the_full_decode() -> None:
    data = encoded(photographs()[0], "PNG")
    for limits in (ImageLimits(max_bytes=1000), ImageLimits(max_pixels=1000), ImageLimits(min_edge=2000)):
        with pytest.raises(BadImage):
            look(data, limits)


def test_what_is_no_picture_of_use() -> None:
    for data in (
        b"",
        b"not an image",
        encoded(Image.new("L", (4, 100)), "PNG"),
        encoded(Image.new("L", (10, 3000)), "PNG"),
    ):
        with pytest.raises(BadImage):
            look(data, LIMITS)
