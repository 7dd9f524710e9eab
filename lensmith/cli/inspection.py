"""What `lensmith inspect` says: to people as lines, to programs as one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from data_prep.facts import Facts
from data_prep.figures.histogram import Histogram
from data_prep.inspection.given import Given
from data_prep.inspection.inspection import Inspection
from data_prep.inspection.rows import Count
from data_prep.refusal import TITLES, Code, Flaw, escaped, quoted
from data_prep.report.charts import columns
from lensmith.cli.output import table

# Of each reason, and of the copies.
_SHOWN = 5
_COPIES_SHOWN = 10
_BAR = 30
_NO_LABELS = (
    "no labels found: the pictures are looked at; before a model can learn from them, a file of labels has"
    " to name them"
)
_LACKING = "a recipe has to say how its rows are read (data.options):"


def lines(found: Inspection) -> list[str]:
    """The whole answer. What comes from the data is escaped: names of files may hold anything."""
    text: list[str] = []
    for given, count in zip(found.handed.given, found.rows.counts, strict=True):
        text += [*_source(given, count), ""]
    if found.rows.codes:
        text += [*_unreadable(found), ""]
    pictures = found.looked.seen
    if refused := _refused(found):
        many = sum(map(len, refused.values()))
        text += [f"pictures that cannot be used: {many:,} of {len(pictures):,}", *_by_code(refused), ""]
    if pictures:
        text += [*_copies(found), *_figures(found)]
    return [escaped(line) for line in text]


def _source(given: Given, count: Count) -> Iterator[str]:
    yield f"{given.title}"
    yield f"  {given.format}{f', because {given.why}' if given.why else ''}"
    if given.lacking:
        yield f"  {_LACKING}"
        yield from (f"    {problem}" for problem in given.lacking)
        if given.columns:
            yield f"  its columns: {', '.join(map(quoted, given.columns))}"
    elif not given.labelled:
        yield f"  {_NO_LABELS}"
        yield f"  {count.pictures:,} pictures"
    else:
        unreadable = f", {count.unreadable:,} of them cannot be read" if count.unreadable else ""
        yield f"  {count.rows:,} rows{unreadable}; {count.pictures:,} pictures"
    if count.problem:
        yield "  it cannot be read, or not to its end:"
        yield from (f"    {line}" for line in str(count.problem).splitlines())
    if count.fetched:
        yield f"  {count.fetched:,} more by address, not looked at: lensmith prepare fetches them"
    if count.videos:
        yield f"  {count.videos:,} videos, not looked at: lensmith prepare samples them, by data.video"


def _unreadable(found: Inspection) -> Iterator[str]:
    rows = sum(count.rows for count in found.rows.counts)
    unreadable = sum(count.unreadable for count in found.rows.counts)
    yield f"rows that cannot be read: {unreadable:,} of {rows:,}"
    told: dict[Code, list[tuple[str, Flaw]]] = {code: [] for code in found.rows.codes}
    for refusal in found.rows.refusals:
        for flaw in refusal.flaws:
            told[flaw.code].append((f"{refusal.place}: ", flaw))
    yield from _by_code(told, found.rows.codes)


def _refused(found: Inspection) -> dict[Code, list[tuple[str, Flaw]]]:
    refused: dict[Code, list[tuple[str, Flaw]]] = {}
    for seen in found.looked.seen:
        if isinstance(seen, Flaw):
            refused.setdefault(seen.code, []).append(("", seen))
    return refused


def _by_code(told: dict[Code, list[tuple[str, Flaw]]], counts: Counter[Code] | None = None) -> Iterator[str]:
    """Each reason, how often (`counts`, where not all are told), and its first few."""
    for code, flaws in told.items():
        many = counts[code] if counts else len(flaws)
        yield f"  {TITLES[code]} ({code}): {many:,}"
        yield from (f"    {place}{flaw.what} ({flaw.mend})" for place, flaw in flaws[:_SHOWN])
        if many > _SHOWN:
            yield f"    ... and {many - _SHOWN:,} more"


def _copies(found: Inspection) -> Iterator[str]:
    copies = list(found.looked.copies.items())
    equal = sum(_is_equal(found, *each) for each in copies)
    if not copies:
        yield "copies: none"
    else:
        near = "the same picture saved again, resized, cropped, turned or mirrored"
        yield f"copies: {equal:,} byte for byte, {len(copies) - equal:,} near ({near})"
        rows = [_pair(found, number, first) for number, first in copies[:_COPIES_SHOWN]]
        yield from (f"  {line}" for line in table(rows, ("first", "copy", "")).splitlines())
        if len(copies) > _COPIES_SHOWN:
            yield f"  ... and {len(copies) - _COPIES_SHOWN:,} more"
    yield ""


def _pair(found: Inspection, number: int, first: int) -> tuple[str, str, str]:
    how = "byte for byte" if _is_equal(found, number, first) else "near"
    return quoted(found.name(first)), quoted(found.name(number)), how


def _is_equal(found: Inspection, number: int, first: int) -> bool:
    one, other = found.looked.seen[number], found.looked.seen[first]
    return isinstance(one, Facts) and isinstance(other, Facts) and one.file == other.file


def _figures(found: Inspection) -> Iterator[str]:
    formats, edges = _formats(found), _edges(found)
    yield f"formats: {', '.join(f'{kind} {count:,}' for kind, count in formats.items()) or 'none'}"
    if edges["bins"]:
        rows = [
            (each.span, f"{each.count:,}", "#" * round(each.height * _BAR / 100)) for each in columns(edges)
        ]
        yield "longer edge in pixels:"
        yield from (f"  {line}" for line in table(rows).splitlines())


def _facts(found: Inspection) -> Iterable[Facts]:
    return (seen for seen in found.looked.seen if isinstance(seen, Facts))


def _formats(found: Inspection) -> dict[str, int]:
    """How many pictures have each format, the commonest first."""
    return dict(Counter(each.format for each in _facts(found)).most_common())


def _edges(found: Inspection) -> dict[str, Any]:
    return Histogram(max(each.width, each.height) for each in _facts(found)).summary()


def as_json(found: Inspection) -> dict[str, Any]:
    """The same for programs, whole but for the rows beyond the first MOST_TOLD that cannot be read."""
    refused = _refused(found)
    copies = found.looked.copies.items()
    return {
        "sources": [
            {
                "path": _text(given.title),
                "format": given.format,
                "why": _text(given.why),
                "labels": given.labelled,
                "problem": _text(str(count.problem)) if count.problem else None,
                "columns": [_text(name) for name in given.columns],
                "lacking": [{"option": each.where, "what": each.what} for each in given.lacking],
                "rows": count.rows if given.labelled else 0,
                "unreadable_rows": count.unreadable,
                "pictures": count.pictures,
                "by_address": count.fetched,
                "videos": count.videos,
            }
            for given, count in zip(found.handed.given, found.rows.counts, strict=True)
        ],
        "rows_by_reason": dict(found.rows.codes),
        "rows": [
            {"place": _text(refusal.place), "row": _text(refusal.row), **_flaw(flaw)}
            for refusal in found.rows.refusals
            for flaw in refusal.flaws
        ],
        "pictures": len(found.looked.seen),
        "pictures_by_reason": {code: len(flaws) for code, flaws in refused.items()},
        "refused": [
            {"file": _text(found.name(number)), **_flaw(seen)}
            for number, seen in enumerate(found.looked.seen)
            if isinstance(seen, Flaw)
        ],
        "copies": [
            {
                "file": _text(found.name(number)),
                "copy_of": _text(found.name(first)),
                "byte_for_byte": _is_equal(found, number, first),
            }
            for number, first in copies
        ],
        "formats": _formats(found),
        "longer_edge": _edges(found),
    }


def _flaw(flaw: Flaw) -> dict[str, str]:
    return {"code": flaw.code, "reason": _text(flaw.reason), "mend": flaw.mend}


def _text(text: str) -> str:
    """Half a surrogate pair, as in names that are not UTF-8, cannot be printed."""
    return text.encode("utf-8", "backslashreplace").decode()
