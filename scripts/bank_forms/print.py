"""Printed digits in many fonts: what the base is taught on, and no handwriting."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# The text fonts that matplotlib ships whose digits stand on the line (its cmmi10 has old-style figures).
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralItalic",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
GLYPH = 28
# Digits are as high as MNIST's, 20 of 28 pixels, so that both zoom alike.
DIGIT_HEIGHT = 20
# Point size at which glyphs are drawn before they are reduced, and what a bold stroke adds around them.
_POINTS = 200
_BOLD = 6


def printed_digits() -> np.ndarray:
    """Every digit in every font, plain and bold: float32 [10, 2 * fonts, GLYPH, GLYPH], 1 for full ink."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    glyphs = [
        [_render(digit, folder / f"{font}.ttf", stroke) for font in FONTS for stroke in (0, _BOLD)]
        for digit in "0123456789"
    ]
    return np.asarray(glyphs, np.float32)


def _render(digit: str, font_file: Path, stroke: int) -> np.ndarray:
    """One digit, centred and DIGIT_HEIGHT high; `stroke` pixels of the large drawing are added around it."""
    font = ImageFont.truetype(font_file, _POINTS)
    left, top, right, bottom = font.getbbox(digit, stroke_width=stroke)
    image = Image.new("L", (int(right - left), int(bottom - top)), 0)
    ImageDraw.Draw(image).text((-left, -top), digit, font=font, fill=255, stroke_width=stroke)
    height = DIGIT_HEIGHT
    width = max(1, round(image.width * height / image.height))
    scaled = image.resize((width, height), Image.Resampling.LANCZOS)
    glyph = Image.new("L", (GLYPH, GLYPH), 0)
    glyph.paste(scaled, ((GLYPH - width) // 2, (GLYPH - height) // 2))
    return np.asarray(glyph, np.float32) / 255
