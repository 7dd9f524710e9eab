"""Sources whose images are drawn from documents: pages of PDFs, frames of DICOM files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.decoding.work import Drawing
from data_prep.refusal import Flaw, quoted
from data_prep.sources.columns import ColumnOptions, as_text, check_columns
from data_prep.sources.folder import file_facts, file_stamp
from data_prep.sources.sheet import Record, Sheet, open_sheet
from data_prep.sources.source import Found, Source
from lensmith.errors import InputError, Problem


class DocumentOptions(ColumnOptions):
    """Which table labels the documents, and where it names them."""

    labels: str = Field(default="labels.csv", description="table of the labels: CSV, Excel or JSONL")
    file: str = Field(
        default="file", min_length=1, description="column with the document's path in the folder"
    )


class DrawnSource(Source):
    """A folder of documents, and a table that labels their pages or frames.

    No document is opened in this process: whoever looks at a picture has a worker draw it.
    """

    def __init__(self, path: Path, options: DocumentOptions, number: tuple[str, str]) -> None:
        """`path` is the folder or the table. `number`: the option that names the column of page or frame, and
        the column, "" where there is none. Raises InputError where there is no table of labels."""
        self.labels = labels_file(path, options.labels)
        self.root = (self.labels.parent if path.is_file() else path).resolve()
        self.name = path.name
        self._file_column = options.file
        self._named = [*options.named(), ("file", options.file), number]

    @cached_property
    def sheet(self) -> Sheet:
        """The table of labels. Raises InputError where it cannot be read or lacks a named column."""
        sheet = open_sheet(self.labels)
        check_columns(self.labels.name, self._named, sheet.columns)
        return sheet

    def rows(self) -> Iterator[Found]:
        for record in self.sheet.records():
            if record.cells is None:
                yield Found(record.place, "", None, record.flaws)
            else:
                yield self.labelled(record, record.cells, self.file_of(record.cells))

    def file_of(self, cells: dict[str, Any]) -> str:
        """The document's path in the folder, as a row of the table names it."""
        return as_text(cells[self._file_column]).strip()

    @abstractmethod
    def labelled(self, record: Record, cells: dict[str, Any], file: str) -> Found:
        """The row of one line of the table; `file` is its document, "" where it names none."""

    def facts(self) -> dict[str, Any]:
        return {**file_facts(self.labels), "read_as": self.sheet.read_as}

    @abstractmethod
    def drawing(self, path: str) -> Drawing | Flaw:
        """What a sample's image path asks for, the file not opened; a Flaw where it asks for nothing."""

    def picture(self, path: str) -> Drawing | Flaw:
        drawing = self.drawing(path)
        if isinstance(drawing, Drawing) and not drawing.file.is_file():
            mend = "add the file, or correct its name in the table of labels"
            return Flaw("image_missing", f"there is no file for {quoted(path)}", mend)
        return drawing

    def picture_stamp(self, path: str) -> list[Any]:
        drawing = self.drawing(path)
        return file_stamp(drawing if isinstance(drawing, Flaw) else drawing.file)


def split_number(path: str, word: str) -> tuple[str, int] | None:
    """("scan.pdf", 3) of "scan.pdf#page=3"; None where the path has no such ending."""
    name, mark, number = path.rpartition(f"#{word}=")
    if not mark or not name or not number.isascii() or not number.isdigit() or len(number) > 9:
        return None
    return (name, int(number)) if int(number) else None


def labels_file(path: Path, name: str) -> Path:
    """The table of labels: `path` itself where it is a file, else `name` inside the folder `path`.

    Raises InputError where there is none.
    """
    if path.is_file():
        return path
    found = path / name
    if not found.is_file():
        tables = sorted(each.name for each in path.glob("*") if each.suffix in (".csv", ".jsonl", ".xlsx"))
        mend = f"set labels to one of {', '.join(tables)}" if tables else "add the table of labels"
        raise InputError(f"{path} has no {name}", [Problem("no such file", "option labels", mend)])
    return found


def read_number(value: Any) -> int | None:
    """A page or frame number as a table holds it (3, "3", 3.0); None where it is none."""
    text = str(value).strip().removesuffix(".0")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        return None
    return int(text) or None
