"""The second step: every picture that a row names, opened once and remembered by its file's digest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.decoding.work import Request, read_file
from data_prep.engines.engine import Engine
from data_prep.picture_cache import PictureCache
from data_prep.picture_table import Picture
from data_prep.pictures import file_to_read
from data_prep.refusal import Flaw
from data_prep.seen import Seen
from data_prep.sight import SEE, file_digest
from data_prep.sources.source import Source
from data_prep.stamp import Stamp
from data_prep.workbook import Workbook
from lensmith.images import BadImage, ImageLimits
from lensmith.progress import Progress

_PICTURES_AT_ONCE = 512


def look_at_pictures(
    book: Workbook, sources: Sequence[Source], limits: ImageLimits, cache: PictureCache, engine: Engine
) -> None:
    """Look at every picture that nobody looked at; a killed call loses the last few hundred."""
    total, done = book.pictures.progress()
    with Progress("pictures checked", total, done) as progress:
        looking = _Looking(book, sources, limits, cache, progress)
        for answer in engine.look(SEE, looking.unknown()):
            looking.take(answer)
        looking.write_down()


@dataclass(frozen=True)
class _Asked:
    """A picture that a worker opens: its number; place and stamp of a file of its own."""

    number: int
    stamp: tuple[Path, Stamp] | None


class _Looking:
    """The pictures on their way: those that must be opened go out, what is known of any is written down."""

    def __init__(
        self,
        book: Workbook,
        sources: Sequence[Source],
        limits: ImageLimits,
        cache: PictureCache,
        progress: Progress,
    ) -> None:
        self._book, self._sources, self._limits, self._cache = book, sources, limits, cache
        self._progress = progress
        self._asked: deque[_Asked] = deque()
        self._found: dict[int, Seen | Flaw] = {}
        self._seen: list[Seen] = []
        self._stamps: list[tuple[Path, Stamp, bytes]] = []

    def unknown(self) -> Iterator[Request]:
        """What must be opened, in the order of the pictures."""
        after = 0
        while page := self._book.pictures.unseen(_PICTURES_AT_ONCE, after):
            for picture in page:
                after = picture.number
                request = self._request(picture)
                if request is not None:
                    yield request

    def _request(self, picture: Picture) -> Request | None:
        opened = self._sources[picture.source].picture(picture.path)
        known: Seen | Flaw | None
        stamp: tuple[Path, Stamp] | None = None
        if isinstance(opened, Flaw):
            known = opened
        elif isinstance(opened, Path):
            facts = file_to_read(opened, picture.path, self._limits)
            if isinstance(facts, Flaw):
                known = facts
            else:
                stamp = (opened, Stamp.of(facts))
                file = self._cache.file_of(*stamp) or self._copied(stamp)
                known = None if file is None else self._cache.find(file)
        elif isinstance(opened, bytes):
            known = self._cache.find(file_digest(opened))
        else:
            # What it shows is not known before a worker has drawn it.
            known = None
        if known is not None:
            self._note(picture.number, known)
            return None
        assert not isinstance(opened, Flaw)
        self._asked.append(_Asked(picture.number, stamp))
        return Request(picture.path, opened)

    def _copied(self, stamp: tuple[Path, Stamp]) -> bytes | None:
        """The digest of a file that may hold the bytes of a known one: reading is cheaper than decoding."""
        path, facts = stamp
        if not self._cache.knows_size(facts.size):
            return None
        try:
            file = file_digest(read_file(path, self._limits.max_bytes))
        except (OSError, BadImage):
            # A worker comes to the same, and says it in the words of a refusal.
            return None
        if self._cache.find(file) is not None:
            self._stamps.append((*stamp, file))
        return file

    def take(self, answer: Seen | Flaw) -> None:
        """What a worker saw in the picture that was asked first of those without an answer."""
        asked = self._asked.popleft()
        if isinstance(answer, Seen):
            self._seen.append(answer)
            if asked.stamp is not None:
                self._stamps.append((*asked.stamp, answer.file))
        self._note(asked.number, answer)

    def _note(self, number: int, known: Seen | Flaw) -> None:
        self._found[number] = known
        if len(self._found) >= _PICTURES_AT_ONCE:
            self.write_down()

    def write_down(self) -> None:
        """Keep what was found since the last time."""
        if self._seen or self._stamps:
            self._cache.keep(self._seen, self._stamps)
        self._book.pictures.saw(self._found.items())
        self._progress.add(len(self._found))
        self._found, self._seen, self._stamps = {}, [], []
