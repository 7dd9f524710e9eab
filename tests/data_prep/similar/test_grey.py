"""Greys are those that people see."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_prep.similar.grey import small_grey


def test_transparency_lies_on_white_and_sixteen_bits_are_scaled() -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    assert set(small_grey(clear).tobytes()) == {255}
    deep = Image.fromarray(np.full((64, 64), 32768, np.uint16))
    assert set(small_grey(deep).tobytes()) == {128}
