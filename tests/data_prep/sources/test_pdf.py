"""A folder of PDFs with labels by page."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from data_prep.decoding import work
from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Drawing, Request
from data_prep.refusal import Flaw
from data_prep.sight import SEE, see
from data_prep.sources.pdf import DRAW, Pdf, PdfOptions, draw_page
from data_prep.sources.rendered import read_number, split_number
from lensmith.errors import InputError
from lensmith.images import BadImage, ImageLimits
from lensmith.sample import Image
from tests.data_prep.sources.pdfs import write_pdf

PLAIN: dict[str, Any] = {"answer": "answer", "prompt": "Which colour?"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pdf(tmp_path / "a.pdf", ["1 0 0", "0 0 1"])
    (tmp_path / "labels.csv").write_text("file,page,answer\na.pdf,1,red\na.pdf,2,blue\na.pdf,x,?\n,1,?\n")
    return tmp_path


def drawing(source: Pdf, path: str) -> Drawing:
    found = source.picture(path)
    assert isinstance(found, Drawing), found
    return found


def picture(source: Pdf, path: str) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(draw_page(drawing(source, path), ImageLimits())))


def refused(source: Pdf, path: str) -> str:
    found = source.picture(path)
    if isinstance(found, Flaw):
        assert found.mend
        return f"{found.code} {found.what}"
    assert isinstance(found, Drawing)
    with pytest.raises(BadImage) as error:
        draw_page(found, ImageLimits())
    return error.value.summary


def test_rows(folder: Path) -> None:
    source = Pdf(folder, PdfOptions(**PLAIN))
    first, second, third, fourth = source.rows()
    assert (first.place, first.row) == ("labels.csv:2", "a.pdf#page=1")
    assert first.sample is not None
    assert second.sample is not None
    assert first.sample.images == (Image("a.pdf#page=1"),)
    assert (second.sample.answer, second.sample.group) == ("blue", "a.pdf")
    assert third.flaws[0].what == "'x' is no page number"
    assert fourth.flaws[0].code == "no_image"
    facts = source.facts()
    assert (facts["dpi"], facts["bytes"]) == (150, (folder / "labels.csv").stat().st_size)
    assert facts["pdfium"]


def test_the_table_may_be_named_itself(folder: Path) -> None:
    assert len(list(Pdf(folder / "labels.csv", PdfOptions(**PLAIN)).rows())) == 4


def test_pages_are_drawn_at_the_resolution_asked_for(folder: Path) -> None:
    image = picture(Pdf(folder, PdfOptions(**PLAIN, dpi=72)), "a.pdf#page=1")
    assert (image.size, image.mode, image.info) == ((72, 144), "RGB", {})
    assert [image.getpixel(at) for at in ((5, 139), (70, 139), (5, 5))] == [
        (255, 0, 0),
        (255, 255, 255),
        (255, 255, 255),
    ]
    second = picture(Pdf(folder, PdfOptions(**PLAIN)), "a.pdf#page=2")
    assert (second.size, second.getpixel((5, 295))) == ((150, 300), (0, 0, 255))


def test_what_was_typed_into_a_form_is_drawn(folder: Path) -> None:
    write_pdf(folder / "form.pdf", ["1 0 0"], field=True)
    image = picture(Pdf(folder, PdfOptions(**PLAIN, dpi=72)), "form.pdf#page=1")
    red, green, blue = image.getpixel((62, 10))  # type: ignore[misc]
    assert green > max(red, blue)


def test_the_same_page_gives_the_same_bytes(folder: Path) -> None:
    sources = [Pdf(folder, PdfOptions(**PLAIN)) for _ in range(2)]
    first, second = (draw_page(drawing(source, "a.pdf#page=1"), ImageLimits()) for source in sources)
    assert first == second


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a.pdf#page=3", "the PDF has 2 pages, page 3 is asked for"),
        ("a.pdf", "image_path"),
        ("a.pdf#page=0", "image_path"),
        ("a.pdf#page=-1", "image_path"),
        ("../a.pdf#page=1", "image_path"),
        ("/etc/passwd#page=1", "image_path"),
        ("b.pdf#page=1", "image_missing"),
        ("labels.csv#page=1", "is broken, or is no PDF"),
        ("torn.pdf#page=1", "broken"),
        ("locked.pdf#page=1", "encrypted"),
        ("huge.pdf#page=1", "100,000,000 in all are allowed"),
        ("thin.pdf#page=1", "too small or too long"),
    ],
)
def test_pages_that_cannot_be_drawn(folder: Path, path: str, said: str) -> None:
    (folder / "torn.pdf").write_bytes((folder / "a.pdf").read_bytes()[:60])
    write_pdf(folder / "locked.pdf", ["1 0 0"], locked=True)
    write_pdf(folder / "huge.pdf", ["1 0 0"], size=(14_000, 14_000))
    write_pdf(folder / "thin.pdf", ["1 0 0"], size=(14_000, 10))
    assert said in refused(Pdf(folder, PdfOptions(**PLAIN)), path)


def test_a_pipe_or_a_document_too_large_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe.pdf")
    source = Pdf(folder, PdfOptions(**PLAIN))
    assert "image_missing" in refused(source, "pipe.pdf#page=1")
    with pytest.raises(FileNotFoundError):
        Drawing(DRAW, folder / "pipe.pdf", 1, {}).read()
    monkeypatch.setattr(work, "MAX_DOCUMENT_BYTES", 100)
    assert "100 are allowed" in refused(source, "a.pdf#page=1")


def test_limits_are_those_of_the_recipe(folder: Path) -> None:
    asked = drawing(Pdf(folder, PdfOptions(**PLAIN)), "a.pdf#page=2")
    with pytest.raises(BadImage, match="1,000 in all"):
        draw_page(asked, ImageLimits(max_pixels=1000))


def test_the_pool_draws_pages_and_outlives_hostile_ones(folder: Path) -> None:
    write_pdf(folder / "huge.pdf", ["1 0 0"], size=(14_000, 14_000))
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    source = Pdf(folder, PdfOptions(**PLAIN))
    names = ["a.pdf#page=1", "huge.pdf#page=1", "torn.pdf#page=1", "a.pdf#page=2"]
    requests = [Request(name, drawing(source, name)) for name in names]
    with DecoderPool(ImageLimits(), work=SEE, workers=1) as pool:
        first, huge, torn, last = pool.facts(requests)
    assert (first, last) == tuple(
        see(draw_page(drawing(source, name), ImageLimits()), ImageLimits()) for name in (names[0], names[3])
    )
    assert isinstance(huge, Flaw)
    assert isinstance(torn, Flaw)
    assert "in all are allowed" in huge.what
    assert "broken" in torn.what


def test_the_stamp_changes_with_the_file(folder: Path) -> None:
    source = Pdf(folder, PdfOptions(**PLAIN))
    before = source.picture_stamp("a.pdf#page=1")
    assert len(before) == 2
    write_pdf(folder / "a.pdf", ["1 0 0"])
    assert source.picture_stamp("a.pdf#page=1") != before
    assert source.picture_stamp("b.pdf#page=1") == source.picture_stamp("a.pdf") == []


def test_a_missing_table_or_column(folder: Path) -> None:
    with pytest.raises(InputError, match=r"set labels to one of labels\.csv"):
        Pdf(folder, PdfOptions(**PLAIN, labels="label.csv"))
    with pytest.raises(InputError, match="did you mean 'page'"):
        list(Pdf(folder, PdfOptions(**PLAIN, page="pag")).rows())
    (folder / "single.csv").write_text("file,answer\na.pdf,red\n")
    (found,) = Pdf(folder, PdfOptions(**PLAIN, labels="single.csv", page="")).rows()
    assert found.row == "a.pdf#page=1"


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), ("3", 3), (3.0, 3), (" 3 ", 3), ("0", None), ("", None), (None, None), ("²", None)],
)
def test_page_numbers(value: object, number: int | None) -> None:
    assert read_number(value) == number


def test_a_file_name_may_hold_the_mark() -> None:
    assert split_number("a#page=1.pdf#page=2", "page") == ("a#page=1.pdf", 2)
    assert split_number("#page=2", "page") is None
    assert split_number("a.pdf#page=²", "page") is None
