"""The printed payment form: where its captions, boxes and writing cells are.

A form is 8 x 4 cells of 32 pixels. 32 pixels is one image token of Qwen3-VL (patch 16, merge 2), so every
writing cell is exactly one token and a whole form costs 32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 32
COLUMNS = 8
ROWS = 4
WIDTH = COLUMNS * CELL
HEIGHT = ROWS * CELL

FIRST_CELL_COLUMN = 2
CELLS_PER_FIELD = COLUMNS - FIRST_CELL_COLUMN
FIELDS = ("account", "amount", "date")
PROMPT = "Read the form."

_PAPER = (252, 251, 247)


@dataclass(frozen=True)
class Stationery:
    """One bank's printed form: its name, its tint (dropout colour, RGB 0-255) and its captions."""

    bank: str
    tint: tuple[int, int, int]
    captions: tuple[str, str, str]


STATIONERY = (
    Stationery("Northgate Bank", (214, 120, 112), ("Account", "Amount", "Date")),
    Stationery("Harbour Savings", (104, 158, 206), ("Account no", "Sum", "Day paid")),
    Stationery("Millstone Union", (122, 176, 128), ("Pay to", "Amount", "Date")),
)


@dataclass(frozen=True)
class Payment:
    """What a form says: the account's six digits, the amount in cents, the date as year, month and day."""

    account: str
    cents: int
    year: int
    month: int
    day: int

    def answer(self) -> str:
        """The label: JSON text with the fields account, amount and date."""
        return json.dumps(
            {
                "account": self.account,
                "amount": f"{self.cents // 100}.{self.cents % 100:02d}",
                "date": f"{self.year:04d}-{self.month:02d}-{self.day:02d}",
            },
            separators=(",", ":"),
        )

    def rows(self) -> tuple[str, str, str]:
        """The characters written in each field's six cells, a space for an empty one."""
        amount = f"{self.cents // 100}{self.cents % 100:02d}".rjust(CELLS_PER_FIELD)
        return self.account, amount, f"{self.day:02d}{self.month:02d}{self.year % 100:02d}"


def draw_payment(rng: np.random.Generator) -> Payment:
    """A random payment: any account, one to four digits before the decimal point, a day in 2024 to 2026."""
    whole_digits = int(rng.integers(1, 5))
    whole = int(rng.integers(10 ** (whole_digits - 1), 10**whole_digits))
    day = np.datetime64("2024-01-01") + int(rng.integers(0, 1096))
    year, month, day_of_month = (int(part) for part in str(day).split("-"))
    return Payment(
        account="".join(str(digit) for digit in rng.integers(0, 10, CELLS_PER_FIELD)),
        cents=whole * 100 + int(rng.integers(0, 100)),
        year=year,
        month=month,
        day=day_of_month,
    )


@lru_cache(maxsize=len(STATIONERY))
def blank(stationery: Stationery) -> np.ndarray:
    """The empty form, uint8 [HEIGHT, WIDTH, 3]. Treat it as read-only: it is cached."""
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    tint = stationery.tint
    draw.rectangle((0, 0, WIDTH - 1, CELL - 9), fill=tint)
    draw.text((6, 3), stationery.bank, font=ImageFont.load_default(13), fill=_PAPER)
    draw.text((WIDTH - 6, 5), "payment", font=ImageFont.load_default(11), fill=_PAPER, anchor="ra")
    left = FIRST_CELL_COLUMN * CELL
    for row, caption in enumerate(stationery.captions, start=1):
        top = row * CELL
        draw.text((4, top + 10), caption, font=ImageFont.load_default(11), fill=tint)
        for cell in range(CELLS_PER_FIELD):
            x = left + cell * CELL
            draw.rectangle((x, top + 1, x + CELL - 1, top + CELL - 2), outline=tint)
    point = left + 4 * CELL
    draw.ellipse((point - 2, 3 * CELL - 8, point + 2, 3 * CELL - 4), fill=tint)
    for boundary in (2, 4):
        x = left + boundary * CELL
        draw.line((x - 3, 4 * CELL - 5, x + 3, 3 * CELL + 5), fill=tint, width=2)
    pixels = np.asarray(image)
    pixels.setflags(write=False)
    return pixels


def fill_in(
    stationery: Stationery, rows: tuple[str, str, str], ink: np.ndarray, pen: tuple[int, int, int]
) -> np.ndarray:
    """Write on an empty form.

    `rows` are the characters of each field's cells; `ink` is the ink in the filled cells, in reading order,
    float32 [filled, CELL, CELL] with 0 for paper and 1 for full ink; `pen` is the ink's RGB. Returns uint8
    [HEIGHT, WIDTH, 3]. Raises ValueError where `ink` has not one cell for each written character.
    """
    places = [
        ((row + 1) * CELL, (FIRST_CELL_COLUMN + column) * CELL)
        for row, text in enumerate(rows)
        for column, character in enumerate(text)
        if character != " "
    ]
    if len(places) != len(ink):
        raise ValueError(f"{len(places)} characters to write but {len(ink)} cells of ink")
    page = blank(stationery).astype(np.float32)
    colour = np.asarray(pen, np.float32)
    for (top, left), cell in zip(places, ink, strict=True):
        area = page[top : top + CELL, left : left + CELL]
        area += cell[:, :, None] * (colour - area)
    return np.rint(page).astype(np.uint8)
