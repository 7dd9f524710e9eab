"""Records as two files of one name: JSONL for programs, CSV for a spreadsheet. Written record by record."""

from __future__ import annotations

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
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.jsonl", folder / f"{stem}.csv"]
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    written = 0
    try:
        # The byte-order mark is how Excel recognises UTF-8.
        with (
            temporary[0].open("w", encoding="utf-8", errors=_ODD, newline="\n") as lines,
            temporary[1].open("w", encoding="utf-8-sig", errors=_ODD, newline="") as table,
        ):
            writer = csv.writer(table)
            writer.writerow(columns)
            for record in records:
                content = dict(zip(columns, record, strict=True))
                lines.write(json.dumps(content, ensure_ascii=False) + "\n")
                writer.writerow([cell(value) for value in record])
                written += 1
            for stream in (lines, table):
                stream.flush()
                os.fsync(stream.fileno())
        for source, path in zip(temporary, paths, strict=True):
            source.replace(path)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    sync_file(folder)
    return written


def cell(value: Cell) -> Cell:
    """The value as a spreadsheet may hold it: text that would be run as a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
