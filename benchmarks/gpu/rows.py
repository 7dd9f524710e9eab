"""Rows in memory with a picture each, of the sizes that a case asks for."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image as Picture

from benchmarks.gpu.case import Case
from benchmarks.gpu.model import CELL
from benchmarks.training import Rows
from lensmith.images import encode_png
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Sample, Text

# Sides of a picture, wide to high, at most.
_SHAPE = 1.5


def make_rows(case: Case) -> Rows:
    """The case's rows, the same ones at every call: pictures of its image tokens, spread evenly, and answers
    of digits, as many as its characters."""
    rng = np.random.default_rng(11)
    rows = Rows()
    for at in range(case.rows):
        area = int(rng.integers(*case.image_tokens, endpoint=True))
        wide = max(1, round(math.sqrt(area * rng.uniform(1 / _SHAPE, _SHAPE))))
        edge = wide * CELL, max(1, area // wide) * CELL
        # Even shades compress well; the tower computes the same whatever it sees.
        picture = Picture.new("L", edge, int(rng.integers(256))).convert("RGB")
        digits = "".join(map(str, rng.integers(10, size=int(rng.integers(*case.answer)))))
        asked = Message("user", (Image(f"{at}.png"), Text("Read the shade.")))
        sample = Sample(f"r{at}", "g", (asked, Message("assistant", (Text(digits),))))
        rows.append(Row(sample, (encode_png(picture),)))
    return rows
