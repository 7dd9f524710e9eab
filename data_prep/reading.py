"""The first step: every row of every source, written down with what is wrong with its conversation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, islice

from data_prep.engines.engine import Engine
from data_prep.forgetting import Forgotten
from data_prep.sources.source import Found, Source
from data_prep.videos.showing import Showing
from data_prep.workbook import Workbook
from lensmith.errors import InputError, Problem
from lensmith.progress import Progress

STEP = "read"
_ROWS_AT_ONCE = 1000


def read_rows(
    book: Workbook, sources: Sequence[Source], engine: Engine, forgotten: Forgotten, showing: Showing
) -> None:
    """Read what was not read before; a killed reading goes on after the last rows that were written down.

    Raises InputError where a source holds no row, or the recipe's schema of answers cannot be used.
    """
    if book.done(STEP):
        return
    known = book.count()
    numbered = enumerate(chain.from_iterable(_found(at, source) for at, source in enumerate(sources)))
    waiting = islice(numbered, known, None)
    heads: deque[tuple[int, int]] = deque()

    def batches() -> Iterator[list[Found]]:
        # Rows of two sources are never written as one.
        for at, mine in groupby(waiting, key=lambda each: each[1][0]):
            while batch := list(islice(mine, _ROWS_AT_ONCE)):
                heads.append((at, batch[0][0]))
                kept = [_unless_forgotten(found, forgotten) for _, (_, found) in batch]
                yield showing.shown(sources[at], kept)

    with Progress("rows read", start=known) as progress:
        for rows in engine.screen(batches()):
            book.add(*heads.popleft(), rows)
            progress.add(len(rows))
    book.finish(STEP)


def _found(at: int, source: Source) -> Iterator[tuple[int, Found]]:
    empty = True
    for found in source.rows():
        empty = False
        yield at, found
    if empty:
        raise InputError(f"{source.name} holds no row", [Problem("nothing is in it", mend="export it again")])


def _unless_forgotten(found: Found, forgotten: Forgotten) -> Found:
    flaw = forgotten.flaw(found.sample) if found.sample else None
    # Neither its id nor its pictures come into the report, nor its text into the workbook.
    return Found(found.place, "", None, (flaw,)) if flaw else found
