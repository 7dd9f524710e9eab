"""Single rows as the page shows them: taken, refused, flagged, and copies of one another."""

from __future__ import annotations

import hashlib
import heapq
import json
from dataclasses import dataclass
from pathlib import Path

from data_prep.flag import FLAG_TITLES, Flagged
from data_prep.record_files import SEALED
from data_prep.refusal import TITLES, Refusal
from data_prep.report.findings import COPY_KINDS, Copy, CopyPair
from data_prep.report.thumbnail import Gallery
from lensmith.page import Picture
from lensmith.row_file import Row, RowFile

_TEXT = 600
# More pictures of one row say no more about why it was refused, and weigh on the page.
_PICTURES = 4


@dataclass(frozen=True)
class Taken:
    """A row that was taken; `fields` of the answer where it is a flat JSON object."""

    row: str
    group: str
    question: str
    answer: str
    fields: tuple[tuple[str, str], ...]
    images: tuple[Picture, ...]


@dataclass(frozen=True)
class Reason:
    """Why a row is listed: the reason's title, what it is in this row, and how to mend it."""

    title: str
    what: str
    mend: str


@dataclass(frozen=True)
class Listed:
    """A row that somebody should look at."""

    place: str
    row: str
    reasons: tuple[Reason, ...]
    images: tuple[Picture, ...]


@dataclass(frozen=True)
class Side:
    """One side of a pair; `image` is None where the picture is the exam's or cannot be opened. `answer` is ""
    where pictures are compared, or the exam has it."""

    place: str
    row: str
    said: str
    image: Picture | None
    answer: str = ""


@dataclass(frozen=True)
class Pair:
    """Two copies beside each other."""

    title: str
    sides: tuple[Side, Side]


def taken_rows(path: Path, count: int, gallery: Gallery) -> list[Taken]:
    """`count` rows of a split that look drawn at random and are the same for the same rows."""
    rows = RowFile(path)
    names = (name for (names,) in rows.columns("id") for name in names.to_pylist())
    drawn = heapq.nsmallest(count, ((_lot(name), place) for place, name in enumerate(names)))
    return [_taken(rows[place], gallery) for _, place in drawn]


def refused_row(refusal: Refusal, gallery: Gallery) -> Listed:
    """A refused row with its pictures as they were handed over."""
    reasons = tuple(Reason(TITLES[flaw.code], flaw.what, flaw.mend) for flaw in refusal.flaws)
    # What takes too much time or memory, or crashes, is not opened once more; what is forgotten is not shown.
    hidden = any(flaw.code in ("image_unsafe", "forgotten") for flaw in refusal.flaws)
    paths = () if hidden else refusal.images[:_PICTURES]
    images = gallery.thumbnails(refusal.source, paths)
    return Listed(refusal.place, refusal.row, reasons, images)


def flagged_row(flagged: Flagged, gallery: Gallery) -> Listed:
    """A flagged row with its pictures as they were handed over."""
    reasons = tuple(Reason(FLAG_TITLES[flag.code], flag.what, flag.mend) for flag in flagged.flags)
    images = gallery.thumbnails(flagged.source, flagged.images[:_PICTURES])
    return Listed(flagged.place, flagged.row, reasons, images)


def copy_pair(pair: CopyPair, gallery: Gallery) -> Pair:
    """Both pictures of a pair; a row of the exam is neither named nor shown, nor is what copies it."""
    sealed = "held_out" in (pair.left.split, pair.right.split)
    sides = _side(pair.left, gallery, sealed), _side(pair.right, gallery, sealed)
    return Pair(COPY_KINDS[pair.kind], sides)


def _side(copy: Copy, gallery: Gallery, sealed: bool) -> Side:
    if copy.split == "held_out":
        return Side("", "", SEALED, None)
    images = () if sealed or not copy.picture else gallery.thumbnails(copy.source, [copy.picture])
    said = f"taken, {copy.split}" if copy.split else "refused"
    answer = "" if sealed else _cut(copy.answer)
    return Side(copy.place, copy.row, said, images[0] if images else None, answer)


def _lot(row: str) -> bytes:
    return hashlib.sha256(row.encode()).digest()


def _taken(row: Row, gallery: Gallery) -> Taken:
    sample = row.sample
    return Taken(
        sample.id,
        sample.group,
        _cut("\n".join(message.text for message in sample.prompt)),
        _cut(sample.answer),
        _fields(sample.answer),
        tuple(gallery.stored(*each) for each in zip(sample.images, row.images, strict=True)),
    )


def _fields(answer: str) -> tuple[tuple[str, str], ...]:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(value, dict) or any(isinstance(each, dict | list) for each in value.values()):
        return ()
    return tuple(
        (name, _cut(each if isinstance(each, str) else json.dumps(each))) for name, each in value.items()
    )


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}\N{HORIZONTAL ELLIPSIS}"
