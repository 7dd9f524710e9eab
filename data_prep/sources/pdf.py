"""A folder of PDFs with labels by page.

    file,page,account,amount
    2026/scan-7.pdf,3,482913,12.50

A page is drawn by PDFium at `dpi`, filled form fields and annotations included, JavaScript not. The pixels
depend on the file, on `dpi` and on PDFium's version, which `facts` states; and, where a PDF does not carry
its fonts, on the fonts of the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pypdfium2
from pydantic import Field
from pypdfium2.version import PDFIUM_INFO

from data_prep.decoding.work import Drawing
from data_prep.pictures import locate
from data_prep.refusal import Flaw, quoted
from data_prep.sources.columns import as_text, sample_of
from data_prep.sources.rendered import DocumentOptions, DrawnSource, read_number, split_number
from data_prep.sources.sheet import Record
from data_prep.sources.source import Found
from lensmith.images import MAX_ASPECT, BadImage, ImageLimits, encode_png
from lensmith.sample import Image

# PDF units are 1/72 inch (ISO 32000-1, 8.3.2.3).
_UNITS_AN_INCH = 72
DRAW = "data_prep.sources.pdf:draw_page"


class PdfOptions(DocumentOptions):
    """How a folder of PDFs is read."""

    page: str = Field(default="page", description="column with the page, from 1; page 1 where empty")
    dpi: int = Field(default=150, ge=36, le=600, description="dots per inch a page is drawn at")


class Pdf(DrawnSource):
    """Pages of PDFs, each labelled by a row of the table; its group is the PDF where no column says it."""

    format = "pdf"
    options_kind = PdfOptions

    def __init__(self, path: Path, options: PdfOptions) -> None:
        self.options = options
        super().__init__(path, options, ("page", options.page))

    def labelled(self, record: Record, cells: dict[str, Any], file: str) -> Found:
        page = read_number(cells[self.options.page]) if self.options.page else 1
        if page is None:
            said = quoted(as_text(cells[self.options.page]))
            flaw = Flaw("schema", f"{said} is no page number", "write 1 for the first page")
            return Found(record.place, "", None, (flaw,))
        images = [Image(f"{file}#page={page}")] if file else []
        names = (images[0].path, file) if images else ("", "")
        return sample_of(self.options, cells, record.place, images, names)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "dpi": self.options.dpi, "pdfium": str(PDFIUM_INFO)}

    def drawing(self, path: str) -> Drawing | Flaw:
        asked = split_number(path, "page")
        if asked is None:
            return Flaw("image_path", f"{quoted(path)} names no page", "write FILE.pdf#page=1")
        file = locate(self.root, asked[0])
        settings = {"dpi": self.options.dpi}
        return file if isinstance(file, Flaw) else Drawing(DRAW, file, asked[1], settings)


def draw_page(asked: Drawing, limits: ImageLimits) -> bytes:
    """The page that `Pdf.picture` asks for, as PNG.

    Raises OSError where the file cannot be read, and BadImage where the PDF is encrypted or broken, has no
    such page, or the page drawn is too large, too small or too long.
    """
    try:
        document = pypdfium2.PdfDocument(asked.read())
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise BadImage("the PDF is encrypted: save it without a password") from error
        raise BadImage("the PDF is broken, or is no PDF") from error
    try:
        return _drawn(document, asked, limits)
    except pypdfium2.PdfiumError as error:
        raise BadImage(f"page {asked.number} of the PDF is broken") from error
    finally:
        document.close()


def _drawn(document: pypdfium2.PdfDocument, asked: Drawing, limits: ImageLimits) -> bytes:
    if asked.number > len(document):
        raise BadImage(f"the PDF has {len(document)} pages, page {asked.number} is asked for")
    # Without this, what people typed into a form's fields is not drawn.
    document.init_forms()
    page = document[asked.number - 1]
    scale = asked.settings["dpi"] / _UNITS_AN_INCH
    width, height = (edge * scale for edge in page.get_size())
    if width * height > limits.max_pixels:
        what = f"the page is {width:,.0f} x {height:,.0f} pixels at {asked.settings['dpi']} dpi"
        raise BadImage(f"{what}, {limits.max_pixels:,} in all are allowed")
    if min(width, height) < limits.min_edge or max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"the page is {width:,.0f} x {height:,.0f} pixels: too small or too long")
    return encode_png(page.render(scale=scale, may_draw_forms=True).to_pil().convert("RGB"))
