"""Every row of what was handed over, and the pictures that the rows name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_prep.inspection.given import HandOver
from data_prep.refusal import Code, Refusal
from data_prep.sources.fetched import is_address
from data_prep.sources.folder import FolderSource
from data_prep.sources.source import Found, Source
from lensmith.errors import InputError
from lensmith.progress import Progress

# Rows that cannot be read are told up to here, and all counted: in a wrong export it is every row.
MOST_TOLD = 10_000
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Named:
    """A picture as the first row that shows it names it: the number of its source, and its path there."""

    source: int
    path: str


@dataclass
class Count:
    """What one source holds: rows, those that cannot be read, and pictures that no earlier source has.

    fetched: how often a row shows a picture by an address that the recipe allows. videos: how often a row
    shows one; none is opened. problem: why it cannot be
    read, or not to its end, None where it was.
    """

    rows: int = 0
    unreadable: int = 0
    pictures: int = 0
    fetched: int = 0
    videos: int = 0
    problem: InputError | None = None


@dataclass
class Rows:
    """All sources read. refusals: the first MOST_TOLD rows that cannot be read; codes: their flaws, all."""

    counts: list[Count] = field(default_factory=list)
    pictures: list[Named] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    codes: Counter[Code] = field(default_factory=Counter)


def read_rows(handed: HandOver) -> Rows:
    """Read every source; one of several that cannot be read hides none of the others.

    Raises InputError where the only one cannot be read at all.
    """
    rows = Rows()
    known: set[tuple[Path | int, str]] = set()
    with Progress("rows read") as progress:
        for number, given in enumerate(handed.given):
            rows.counts.append(Count())
            if given.source is None:
                continue
            try:
                for found in given.source.rows():
                    _add(rows, known, number, given.source, found, handed.fetched)
                    progress.add()
            except InputError as error:
                if len(handed.given) == 1:
                    raise
                rows.counts[number].problem = error
    return rows


def _add(
    rows: Rows,
    known: set[tuple[Path | int, str]],
    number: int,
    source: Source,
    found: Found,
    fetched: bool,
) -> None:
    count = rows.counts[number]
    count.rows += 1
    if found.sample is None:
        count.unreadable += 1
        rows.codes.update(flaw.code for flaw in found.flaws)
        if len(rows.refusals) < MOST_TOLD:
            rows.refusals.append(Refusal(found.place, found.row, found.flaws, number))
        return
    count.videos += len(found.sample.videos)
    for image in found.sample.images:
        if fetched and is_address(image.path):
            count.fetched += 1
            continue
        # Two files of labels may name the same files.
        place: tuple[Path | int, str] = (number, image.path)
        if isinstance(source, FolderSource) and source.members is None:
            place = (source.root, str(PurePosixPath(image.path)))
        if place not in known:
            known.add(place)
            rows.pictures.append(Named(number, image.path))
            count.pictures += 1
