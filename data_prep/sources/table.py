"""A table (CSV or Excel) with a folder of images: one row, one labelled image.

    image,customer,account,amount
    scans/1.png,customer-7,482913,12.50

with the options

    image: image
    answer_fields: [account, amount]
    group: customer
    prompt: Read the form.

An empty `id` takes the image's path as the row's id: a row's number would change with every row put in
above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.sources.columns import ColumnOptions, as_text, check_columns, sample_of
from data_prep.sources.folder import FolderSource, file_facts
from data_prep.sources.options import Names
from data_prep.sources.sheet import Record, Sheet, open_sheet
from data_prep.sources.source import Found
from lensmith.sample import Image


class TableOptions(ColumnOptions):
    """How a table with an image folder is read."""

    image: Names = Field(
        description="columns with the paths of the row's images, in the order they are shown"
    )
    image_root: str = Field(default="", description="folder of the images, relative to the table's")
    delimiter: str = Field(default="", max_length=1, description="between cells; found out where empty")
    encoding: str = Field(default="utf-8", description="of a CSV file; a byte-order mark wins")
    sheet: str = Field(default="", description="sheet of an Excel file; the first where empty")


class Table(FolderSource):
    """A CSV, Excel or JSONL table with one labelled row a line."""

    options_kind = TableOptions

    def __init__(self, path: Path, options: TableOptions) -> None:
        super().__init__(path.parent / options.image_root)
        self.path = path
        self.options = options
        self.name = path.name
        self.format = "excel" if path.suffix.lower() in (".xlsx", ".xlsm") else "csv"

    @cached_property
    def sheet(self) -> Sheet:
        """The table, its header read. Raises InputError where it cannot be read or lacks a named column."""
        options = self.options
        sheet = open_sheet(
            self.path, delimiter=options.delimiter, encoding=options.encoding, sheet=options.sheet
        )
        named = [*options.named(), *(("image", name) for name in options.image)]
        check_columns(self.path.name, named, sheet.columns)
        return sheet

    def rows(self) -> Iterator[Found]:
        return (self._found(record) for record in self.sheet.records())

    def _found(self, record: Record) -> Found:
        if record.cells is None:
            return Found(record.place, "", None, record.flaws)
        paths = [as_text(record.cells[name]).strip() for name in self.options.image]
        images = [Image(path) for path in paths if path]
        first = images[0].path if images else ""
        return sample_of(self.options, record.cells, record.place, images, (first, first))

    def facts(self) -> dict[str, Any]:
        return {**file_facts(self.path), "read_as": self.sheet.read_as}
