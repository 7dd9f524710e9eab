"""Records as files: JSONL for programs, CSV for a spreadsheet. Written record by record."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lensmith.files import sync_file

# A cell that starts with one of these is run as a formula by spreadsheets (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as its escape.
_ODD = "backslashreplace"
# In place of what a row of the exam says: its readings are logged, those of these files are not.
SEALED = "a row of the exam, which stays sealed"
Cell = str | int | float | bool | None


def write_records(folder: Path, stem: str, columns: Sequence[str], records: Iterable[Sequence[Cell]]) -> int:
    """Write `stem`.jsonl and `stem`.csv into `folder`, whole or not at all; the number of records.

    Each record has a value a column. Memory does not grow with the records.
    """
    return write_record_files([folder / f"{stem}.jsonl", folder / f"{stem}.csv"], columns, records)


def write_record_files(
    paths: Sequence[Path], columns: Sequence[str], records: Iterable[Sequence[Cell]]
) -> int:
    """Write the same records to each path, by its ending (.jsonl or .csv), as `write_records` does."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    folders = dict.fromkeys(path.parent for path in paths)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        with contextlib.ExitStack() as stack:
            files = [
                (_Lines if path.suffix == ".jsonl" else _Table)(stack, place, columns)
                for path, place in zip(paths, temporary, strict=True)
            ]
            for record in records:
                for file in files:
                    file.write(record)
                written += 1
            for file in files:
                file.stream.flush()
                os.fsync(file.stream.fileno())
        for source, path in zip(temporary, paths, strict=True):
            source.replace(path)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    for folder in folders:
        sync_file(folder)
    return written


class _Lines:
    """JSONL: an object a record."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, columns: Sequence[str]) -> None:
        self.stream = stack.enter_context(path.open("w", encoding="utf-8", errors=_ODD, newline="\n"))
        self._columns = columns

    def write(self, record: Sequence[Cell]) -> None:
        content = dict(zip(self._columns, record, strict=True))
        self.stream.write(json.dumps(content, ensure_ascii=False) + "\n")


class _Table:
    """CSV: a line a record, below its head."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, columns: Sequence[str]) -> None:
        # The byte-order mark is how Excel recognises UTF-8.
        self.stream = stack.enter_context(path.open("w", encoding="utf-8-sig", errors=_ODD, newline=""))
        self._writer = csv.writer(self.stream)
        self._writer.writerow(columns)

    def write(self, record: Sequence[Cell]) -> None:
        self._writer.writerow([cell(value) for value in record])


def cell(value: Cell) -> Cell:
    """The value as a spreadsheet may hold it: text that would be run as a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
