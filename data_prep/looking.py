"""The second step: every picture that a row names, opened once and remembered by its file's digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request
from data_prep.picture_cache import PictureCache
from data_prep.pictures import file_to_read
from data_prep.refusal import Flaw
from data_prep.seen import Seen
from data_prep.sight import SEE, file_digest
from data_prep.sources.source import Source
from data_prep.workbook import Picture, Workbook
from lensmith.images import ImageLimits
from lensmith.progress import Progress

_PICTURES_AT_ONCE = 512


def look_at_pictures(
    book: Workbook, sources: Sequence[Source], limits: ImageLimits, cache: PictureCache
) -> None:
    """Look at every picture that nobody looked at; a killed call loses the last few hundred."""
    total, done = book.pictures()
    with DecoderPool(limits, work=SEE) as pool, Progress("pictures checked", total, done) as progress:
        while batch := book.unseen(_PICTURES_AT_ONCE):
            look = _Batch(sources, limits, cache)
            unknown = look.take(batch)
            look.answer(pool.facts(request for _, request in unknown), unknown)
            book.saw(look.found.items())
            progress.add(len(batch))


class _Batch:
    """Some hundred pictures: those that are known, and those that a worker must open."""

    def __init__(self, sources: Sequence[Source], limits: ImageLimits, cache: PictureCache) -> None:
        self._sources, self._limits, self._cache = sources, limits, cache
        self._stamps: dict[int, tuple[Path, int, int]] = {}
        self.found: dict[int, Seen | Flaw] = {}

    def take(self, pictures: Sequence[Picture]) -> list[tuple[int, Request]]:
        """What must be opened, by the picture's number."""
        unknown: list[tuple[int, Request]] = []
        for picture in pictures:
            opened = self._sources[picture.source].picture(picture.path)
            known: Seen | Flaw | None
            if isinstance(opened, Flaw):
                known = opened
            elif isinstance(opened, Path):
                known = self._known_file(picture, opened)
            elif isinstance(opened, bytes):
                known = self._cache.find(file_digest(opened))
            else:
                # What it shows is not known before a worker has drawn it.
                known = None
            if known is None:
                assert not isinstance(opened, Flaw)
                unknown.append((picture.number, Request(picture.path, opened)))
            else:
                self.found[picture.number] = known
        return unknown

    def _known_file(self, picture: Picture, path: Path) -> Seen | Flaw | None:
        facts = file_to_read(path, picture.path, self._limits)
        if isinstance(facts, Flaw):
            return facts
        self._stamps[picture.number] = (path, facts.st_size, facts.st_mtime_ns)
        file = self._cache.file_of(path, facts.st_size, facts.st_mtime_ns)
        return None if file is None else self._cache.find(file)

    def answer(self, answers: Iterator[Seen | Flaw], unknown: Sequence[tuple[int, Request]]) -> None:
        """Take what the workers saw, and remember it."""
        seen: list[Seen] = []
        stamps: list[tuple[Path, int, int, bytes]] = []
        for (number, _), each in zip(unknown, answers, strict=True):
            self.found[number] = each
            if isinstance(each, Seen):
                seen.append(each)
                if number in self._stamps:
                    stamps.append((*self._stamps[number], each.file))
        self._cache.keep(seen, stamps)
