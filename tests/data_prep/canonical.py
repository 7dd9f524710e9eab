"""One line of labels.jsonl, read."""

from __future__ import annotations

from pathlib import Path

from data_prep.sources.canonical_jsonl import CanonicalJsonl
from data_prep.sources.json_lines import Record, parse_row
from data_prep.sources.source import Found


def parse_line(raw: bytes, place: str) -> Found:
    """What the line `raw` gives; `place` is where it stands."""
    value, flaws = parse_row(raw)
    if flaws:
        return Found(place, "", None, flaws)
    (found,) = CanonicalJsonl(Path("labels.jsonl")).found(Record(1, 0, len(raw), value), place)
    return found
