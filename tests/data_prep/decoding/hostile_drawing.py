"""Drawing that a document can end: what a hostile PDF or DICOM file would make its library do."""

from __future__ import annotations

import os

from data_prep.decoding.work import Drawing
from data_prep.sources.dicom import draw_frame
from data_prep.sources.pdf import draw_page
from lensmith.images import ImageLimits


def draw_or_die(asked: Drawing, limits: ImageLimits) -> bytes:
    """The page or frame, as its own reader draws it; a document that ends in "kill" ends the process."""
    if asked.read().endswith(b"kill"):
        os.abort()
    return (draw_page if asked.file.suffix == ".pdf" else draw_frame)(asked, limits)
