"""What each row is counted under where every kind of row is to get its share of each split."""

from __future__ import annotations

import json
from collections.abc import Iterator

from data_prep.workbook import Workbook
from lensmith.data_settings import Data


def strata_of(book: Workbook, data: Data) -> list[str] | None:
    """The stratum of every taken row, in order; None where the recipe asks for none."""
    field = data.split.stratify
    if field == "none":
        return None
    # One object a name: a million rows have few.
    names: dict[str, str] = {}
    found = _by_source(book, data) if field == "source" else _by_field(book, field)
    return [names.setdefault(name, name) for name in found]


def _by_source(book: Workbook, data: Data) -> Iterator[str]:
    names = [each.local.name for each in data.all_sources()]
    return (names[source] for source in book.taken_sources())


def _by_field(book: Workbook, field: str) -> Iterator[str]:
    """A field's value as JSON, "" where an answer lacks it."""
    for _, answer in book.taken_answers(0):
        content = json.loads(answer)
        stands = isinstance(content, dict) and field in content
        yield json.dumps(content[field], sort_keys=True) if stands else ""
