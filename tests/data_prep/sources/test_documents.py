"""PDFs and DICOM files through the command line: a document that kills what opens it costs its own rows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy
import pytest

from data_prep.sources import dicom, pdf
from tests.data_prep.sources.pdfs import write_pdf
from tests.data_prep.sources.test_dicom import RAMP, SECRETS, write_dicom
from tests.data_prep.told import prepare_told

KILLER = "tests.data_prep.decoding.hostile_drawing:draw_or_die"
PDF = {"answer": "answer", "prompt": "Which colour?"}
DICOM = {"answer": "answer", "prompt": "What is seen?"}


def write_labels(folder: Path, rows: list[list[object]], *columns: str) -> None:
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Twelve PDFs of two pages, one that is torn."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(12):
        write_pdf(folder / f"{number}.pdf", [f"0.{number + 10} 0 1", f"0 0.{number + 10} 1"])
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    rows: list[list[object]] = [[f"{n}.pdf", page, f"answer {n}"] for n in range(12) for page in (1, 2)]
    write_labels(folder, [*rows, ["torn.pdf", 1, "?"], ["0.pdf", 3, "?"]], "file", "page", "answer")
    return folder


def test_pages_are_rows_and_the_broken_ones_say_why(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = prepare_told(pages.parent, capsys, source=str(pages), options={**PDF, "dpi": 36})
    assert (told.code, told.rows, told.body["sources"][0]["format"]) == (0, 24, "pdf")
    refused = told.refused()
    assert {row: [each["code"] for each in found] for row, found in refused.items()} == {
        "torn.pdf#page=1": ["image_unreadable"],
        "0.pdf#page=3": ["image_unreadable"],
    }
    assert "has 2 pages, page 3 is asked for" in refused["0.pdf#page=3"][0]["reason"]
    assert "data:image/png" in (Path(told.body["intake_path"]) / "report.html").read_text()


def test_a_pdf_that_kills_costs_its_rows_only(
    pages: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawn anywhere in this process, page 1 of 3.pdf would end the test.
    monkeypatch.setattr(pdf, "DRAW", KILLER)
    (pages / "3.pdf").write_bytes((pages / "3.pdf").read_bytes() + b"kill")
    told = prepare_told(pages.parent, capsys, source=str(pages), options={**PDF, "dpi": 36})
    refused = told.refused()
    assert (told.code, told.rows) == (0, 22)
    assert [refused[f"3.pdf#page={page}"][0]["code"] for page in (1, 2)] == ["image_unsafe"] * 2


def test_the_recipes_limit_holds_for_pages(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pdf(pages / "5.pdf", ["1 0 0"], size=(720, 720))
    options = {**PDF, "dpi": 36}
    told = prepare_told(pages.parent, capsys, source=str(pages), options=options, max_image_pixels=10_000)
    assert "10,000 in all are allowed" in told.refused()["5.pdf#page=1"][0]["reason"]


def test_frames_are_rows_and_nothing_of_a_patient_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    monkeypatch.setattr(dicom, "DRAW", KILLER)
    for number in range(12):
        pixels = numpy.roll(RAMP, number * 20)
        write_dicom(folder / f"MUSTERMANN_{number}.dcm", pixels)
    with (folder / "MUSTERMANN_7.dcm").open("ab") as stream:
        stream.write(b"kill")
    rows: list[list[object]] = [[f"MUSTERMANN_{n}.dcm", f"finding {n}"] for n in range(12)]
    write_labels(folder, rows, "file", "answer")
    told = prepare_told(tmp_path, capsys, source=str(folder), options=DICOM)
    assert (told.code, told.rows, told.body["sources"][0]["format"]) == (0, 11, "dicom")
    ((record,),) = told.refused().values()
    assert record["code"] == "image_unsafe"
    for file in (tmp_path / "home").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert [secret for secret in SECRETS if secret.encode() in data] == [], file


def test_half_a_window_is_no_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dicom(tmp_path / "a.dcm")
    write_labels(tmp_path, [["a.dcm", "x"]], "file", "answer")
    told = prepare_told(tmp_path, capsys, source=str(tmp_path), format="dicom", options={**DICOM, "width": 9})
    assert told.code == 2
    assert "both a center and a width" in told.said
