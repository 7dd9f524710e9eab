"""The refused rows as files: `refused.jsonl` for programs, `refused.csv` for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from data_prep.refusal import TITLES, Refusal
from lensmith.files import write_atomically

REFUSED_JSONL = "refused.jsonl"
REFUSED_CSV = "refused.csv"
COLUMNS = ("file", "line", "row", "code", "reason", "mend")
# A cell that starts with one of these is run as a formula by spreadsheets (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_refusals(folder: Path, source: str, refusals: Sequence[Refusal]) -> None:
    """Write both files into `folder`: one record a flaw, so a row with two flaws has two records.

    `source` is the name of the file that was handed over.
    """
    records = [
        (source, refusal.line, refusal.row, flaw.code, f"{TITLES[flaw.code]}: {flaw.what}", flaw.mend)
        for refusal in refusals
        for flaw in refusal.flaws
    ]
    lines = [json.dumps(dict(zip(COLUMNS, record, strict=True)), ensure_ascii=False) for record in records]
    write_atomically(folder / REFUSED_JSONL, "".join(f"{line}\n" for line in lines).encode())
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in record] for record in records)
    # The byte-order mark is how Excel recognises UTF-8.
    write_atomically(folder / REFUSED_CSV, table.getvalue().encode("utf-8-sig"))


def _cell(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
