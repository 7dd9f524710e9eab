"""The refused, the flagged and the taken rows as files: JSONL for programs, CSV for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from data_prep.flag import FLAG_TITLES, Flagged
from data_prep.record_files import SEALED, write_records
from data_prep.refusal import Refusal

REFUSED_JSONL = "refused.jsonl"
REFUSED_CSV = "refused.csv"
FLAGGED_JSONL = "flagged.jsonl"
FLAGGED_CSV = "flagged.csv"
TAKEN_JSONL = "taken.jsonl"
TAKEN_CSV = "taken.csv"
COLUMNS = ("place", "row", "code", "reason", "mend")


def write_refusals(folder: Path, refusals: Iterable[Refusal]) -> None:
    """Write both files into `folder`: one record a flaw, so a row with two flaws has two records."""
    records = (
        (refusal.place, refusal.row, flaw.code, flaw.reason, flaw.mend)
        for refusal in refusals
        for flaw in refusal.flaws
    )
    write_records(folder, "refused", COLUMNS, records)


def write_flagged(folder: Path, flagged: Iterable[Flagged]) -> None:
    """Write flagged.jsonl and flagged.csv into `folder`, as `write_refusals` does: one record a flag.

    Of a row of the exam stands there which one it is and what to look at, nothing of what it says.
    """
    records = (
        (
            row.place,
            row.row,
            flag.code,
            f"{FLAG_TITLES[flag.code]}: {SEALED if row.sealed else flag.what}",
            flag.mend,
        )
        for row in flagged
        for flag in row.flags
    )
    write_records(folder, "flagged", COLUMNS, records)


def write_taken(folder: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write taken.jsonl and taken.csv into `folder`: (place, row, split) of every row that is learned."""
    write_records(folder, "taken", ("place", "row", "split"), rows)
