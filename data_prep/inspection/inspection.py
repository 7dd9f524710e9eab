"""The first look: every row read, every picture proved whole or refused, every copy found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.inspection.given import HandOver
from data_prep.inspection.looking import Looked, look_through
from data_prep.inspection.rows import Rows, read_rows
from data_prep.record_files import Cell, write_record_files
from data_prep.refusal import Flaw

MANIFEST_COLUMNS = ("file", "width", "height", "format", "digest", "copy_of", "code", "reason", "mend")


@dataclass(frozen=True)
class Inspection:
    """What was handed over, what its rows are, and what became of the pictures that they name."""

    handed: HandOver
    rows: Rows
    looked: Looked

    def name(self, number: int) -> str:
        """What a picture is called: its path in its source, behind the source where there are several."""
        picture = self.rows.pictures[number]
        title = self.handed.given[picture.source].title
        return f"{title}: {picture.path}" if len(self.handed.given) > 1 else picture.path


def inspect(handed: HandOver, workers: int | None = None) -> Inspection:
    """Read every row, look at every picture and find the copies, in worker processes (one a core).

    Raises InputError where the only source cannot be read at all.
    """
    rows = read_rows(handed)
    return Inspection(handed, rows, look_through(handed.given, rows.pictures, handed.limits, workers))


def write_manifest(found: Inspection, path: Path) -> None:
    """One record a picture, in the order of the rows; a .csv or .jsonl file by the ending of `path`.

    digest: the first 32 hex digits of the SHA-256 of the file. copy_of: the first of those that it is a copy
    of, byte for byte where the digests are equal.
    """
    write_record_files([path], MANIFEST_COLUMNS, _records(found))


def _records(found: Inspection) -> Iterator[tuple[Cell, ...]]:
    for number, seen in enumerate(found.looked.seen):
        name, first = found.name(number), found.looked.copies.get(number)
        copy_of = "" if first is None else found.name(first)
        if isinstance(seen, Flaw):
            yield name, None, None, "", "", copy_of, seen.code, seen.reason, seen.mend
        else:
            yield name, seen.width, seen.height, seen.format, seen.file.hex(), copy_of, "", "", ""
