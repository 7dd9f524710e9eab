"""Between reading and looking: the pictures that rows name by address, fetched several at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from data_prep.sources.fetched import Fetched, is_address
from data_prep.sources.source import Source
from data_prep.workbook import Workbook
from lensmith.progress import Progress

AT_ONCE = 8
_PICTURES_A_PAGE = 512


def fetch_pictures(book: Workbook, sources: Sequence[Source]) -> None:
    """Fetch what nobody looked at; what was fetched before, by a killed run say, costs nothing."""
    if not any(isinstance(each, Fetched) for each in sources):
        return
    # Waiting is most of the work: threads do it. An interrupt waits for those under way alone.
    executor = ThreadPoolExecutor(AT_ONCE, "download")
    try:
        with Progress("pictures fetched") as progress:
            for page in _pages(book, sources):
                for _ in executor.map(lambda each: each[0].picture(each[1]), page):
                    progress.add()
    finally:
        executor.shutdown(cancel_futures=True)


def _pages(book: Workbook, sources: Sequence[Source]) -> Iterator[list[tuple[Source, str]]]:
    after = 0
    while page := book.pictures.unseen(_PICTURES_A_PAGE, after):
        after = page[-1].number
        named = [(sources[each.source], each.path) for each in page if is_address(each.path)]
        yield [(source, path) for source, path in named if isinstance(source, Fetched)]


def drop_refused(book: Workbook, sources: Sequence[Source]) -> None:
    """Keep no copy of what was fetched and cannot be used under the recipe's limits.

    Recipes of other limits have copies of their own (`sources.fetched.downloader`).
    """
    for source, path in book.db.execute("SELECT source, path FROM pictures WHERE flaw IS NOT NULL"):
        fetched = sources[source]
        if is_address(path) and isinstance(fetched, Fetched):
            fetched.drop(path)
