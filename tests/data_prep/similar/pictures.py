"""Pictures to compare: bank forms, filled pages of one template, photographs; and what people do to them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from bank_forms.customers import digits, share_out
from bank_forms.hand import Wobble, draw_again
from bank_forms.layout import STATIONERY, draw_payment, fill_in
from PIL import Image, ImageDraw, ImageFont

from data_prep.similar.details import Details
from data_prep.similar.grey import SIDE, fingerprint
from data_prep.similar.search import Fingerprints

Picture = Image.Image
_WORDS = ("account", "holder", "transfer", "payment", "notice", "customer", "branch", "signed", "total")
_LINES = 40
_FIELDS = range(2, _LINES, 5)
# Importing scikit-learn for two files takes longer than most tests.
_SKLEARN = find_spec("sklearn")
assert _SKLEARN is not None
assert _SKLEARN.origin is not None
_PHOTOGRAPHS = Path(_SKLEARN.origin).parent / "datasets/images"


def bank_forms(count: int, seed: int = 3) -> list[Picture]:
    """Filled forms of one bank, 256 x 128: all differ in their handwriting."""
    rng = np.random.default_rng(seed)
    hands = share_out(20, rng)
    made = []
    for number in range(count):
        rows = draw_payment(rng).rows()
        written = "".join(rows).replace(" ", "")
        sources = [hands.pick(number % 20, int(digit), rng) for digit in written]
        ink = draw_again(hands.images[sources], Wobble(), rng)
        made.append(Image.fromarray(fill_in(STATIONERY[0], rows, ink, (24, 30, 52))))
    return made


def _empty_page() -> Image.Image:
    """One dense A4 page, 1000 x 1400, with eight empty fields."""
    page = Image.new("L", (1000, 1400), 250)
    draw = ImageDraw.Draw(page)
    words = np.random.default_rng(1)
    font = ImageFont.load_default(20)
    draw.rectangle((60, 50, 940, 110), fill=90)
    for line in range(_LINES):
        y = 150 + line * 30
        text = " ".join(words.choice(_WORDS, 10)) if line not in _FIELDS else _WORDS[line % len(_WORDS)]
        draw.text((60, y), text, font=font, fill=30)
        if line in _FIELDS:
            draw.rectangle((300, y - 8, 900, y + 24), fill=250, outline=120)
    return page


def pages(count: int, seed: int = 5) -> list[Picture]:
    """Scans of one dense A4 page, 1000 x 1400, with eight lines of twelve handwritten digits each."""
    template = np.asarray(_empty_page())
    images, _ = digits()
    handwriting = (images * 255).round().astype(np.uint8)
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        filled = template.copy()
        for line in _FIELDS:
            for cell in range(12):
                y, x = 144 + line * 30, 310 + cell * 36
                ink = 255 - handwriting[rng.integers(len(handwriting))]
                filled[y : y + 28, x : x + 28] = np.minimum(filled[y : y + 28, x : x + 28], ink)
        made.append(Image.fromarray(filled))
    return made


def typed_pages(count: int, size: int, seed: int = 7) -> list[Picture]:
    """The same page with eight lines of twelve typed digits, in a font of `size` pixels."""
    template, font, rng = _empty_page(), ImageFont.load_default(size), np.random.default_rng(seed)
    made = []
    for _ in range(count):
        page = template.copy()
        draw = ImageDraw.Draw(page)
        for line in _FIELDS:
            draw.text((310, 148 + line * 30), "".join(rng.choice([*"0123456789"], 12)), font=font, fill=40)
        made.append(page)
    return made


def of_another_line(page: Picture, other: Picture) -> list[Picture]:
    """Pages that differ from one of `pages` in one of its eight lines, which is that of another page."""
    made = []
    for line in _FIELDS:
        box = (0, 140 + line * 30, page.width, 176 + line * 30)
        one = page.copy()
        one.paste(other.crop(box), box)
        made.append(one)
    return made


@cache
def photographs() -> list[Picture]:
    """The two photographs of scikit-learn and 18 parts of them, 320 x 240 and larger."""
    whole = [
        Image.fromarray(np.asarray(Image.open(_PHOTOGRAPHS / name))) for name in ("china.jpg", "flower.jpg")
    ]
    parts = [
        photo.crop((x, y, x + 213, y + 160)).resize((426, 320), Image.Resampling.BICUBIC)
        for photo in whole
        for y in (0, 133, 266)
        for x in (0, 213, 426)
    ]
    return whole + parts


def encoded(picture: Picture, kind: str, **settings: int) -> bytes:
    """The picture as a file of that kind."""
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()


def jpeg(picture: Picture, quality: int) -> Picture:
    """Compressed and opened again."""
    return Image.open(io.BytesIO(encoded(picture, "JPEG", quality=quality)))


def resized(picture: Picture, factor: float) -> Picture:
    return picture.resize((round(picture.width * factor), round(picture.height * factor)))


def cropped(picture: Picture, left: float, top: float, right: float, bottom: float) -> Picture:
    """Parts of the width and height taken off each edge."""
    width, height = picture.size
    box = (left * width, top * height, width - right * width, height - bottom * height)
    left_, top_, right_, bottom_ = (round(edge) for edge in box)
    return picture.crop((left_, top_, right_, bottom_))


PLAIN: dict[str, Callable[[Picture], Picture]] = {
    "quality 30": lambda picture: jpeg(picture, 30),
    "quality 60": lambda picture: jpeg(picture, 60),
    "quality 95": lambda picture: jpeg(picture, 95),
    "0.3 times": lambda picture: resized(picture, 0.3),
    "0.5 times": lambda picture: resized(picture, 0.5),
    "2 times": lambda picture: resized(picture, 2),
    "grey": lambda picture: picture.convert("L"),
    "90 degrees": lambda picture: picture.rotate(90, expand=True),
    "180 degrees": lambda picture: picture.rotate(180),
    "270 degrees": lambda picture: picture.rotate(270, expand=True),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}
CROPPED: dict[str, Callable[[Picture], Picture]] = {
    "3% off": lambda picture: cropped(picture, 0.03, 0.03, 0.03, 0.03),
    "5% off": lambda picture: cropped(picture, 0.05, 0.05, 0.05, 0.05),
    "5% off two sides": lambda picture: cropped(picture, 0.05, 0, 0, 0.02),
    "4% off a corner": lambda picture: cropped(picture, 0.04, 0.01, 0, 0.05),
    "all together": lambda picture: jpeg(
        resized(cropped(picture, 0.03, 0.01, 0.02, 0.03).rotate(90, expand=True), 0.6), 60
    ),
}


def prints(pictures: Sequence[Picture], details: Path | None = None) -> Fingerprints:
    """Fingerprints of opened pictures; with the details where there is a file to put them in."""
    size = SIDE * SIDE
    made = [fingerprint(picture) for picture in pictures]
    thumbnails = np.stack([np.frombuffer(each[:size], np.uint8).reshape(SIDE, SIDE) for each in made])
    sizes = np.array([picture.size for picture in pictures], np.int32)
    if details is None:
        return Fingerprints(thumbnails, sizes)
    details.write_bytes(b"".join(each[size:] for each in made))
    lengths = np.array([len(each) - size for each in made], np.int64)
    return Fingerprints(thumbnails, sizes, Details(details, np.cumsum(lengths) - lengths, lengths))


def joined(first: Fingerprints, second: Fingerprints) -> Fingerprints:
    """Both, without details."""
    return Fingerprints(
        np.concatenate([first.thumbnails, second.thumbnails]), np.concatenate([first.sizes, second.sizes])
    )
