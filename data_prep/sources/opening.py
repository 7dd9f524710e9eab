"""Opening every source that a recipe names."""

from __future__ import annotations

from pathlib import Path

from data_prep.sources.fetched import Fetched, downloader
from data_prep.sources.registry import open_source
from data_prep.sources.source import Source
from data_prep.videos.filmed import Filmed
from data_prep.videos.films import Films
from lensmith.data_settings import Data
from lensmith.errors import InputError, Problem


def open_sources(data: Data, downloads: Path, films: Films | None = None) -> list[Source]:
    """Every source that the recipe names, opened; images that are fetched are kept in `downloads`, frames of
    videos in `films`.

    Raises InputError where one is not there, its format is not known, or two have one name.
    """
    opened: list[Source] = [
        open_source(each.local, each.format or None, each.options) for each in data.all_sources()
    ]
    if films is not None:
        opened = [Filmed(each, films) for each in opened]
    if data.download.hosts:
        fetch = downloader(data, downloads)
        opened = [Fetched(each, fetch) for each in opened]
    names = [source.name for source in opened]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        mend = "rename one: places in reports name their source"
        raise InputError(
            "two sources have one name", [Problem("is given twice", each, mend) for each in twice]
        )
    return opened
