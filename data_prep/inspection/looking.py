"""Every picture looked at by the cheapest decode that proves it whole, and compared with all others."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Drawing, Request, read_file
from data_prep.facts import LOOK, Facts
from data_prep.inspection.given import Given
from data_prep.inspection.rows import Named
from data_prep.pictures import file_to_read
from data_prep.refusal import Flaw
from data_prep.sight import file_digest
from data_prep.similar.clusters import Clusters
from data_prep.similar.grey import SIDE
from data_prep.similar.search import Fingerprints, find_near
from lensmith.images import BadImage, ImageLimits
from lensmith.progress import Progress


@dataclass(frozen=True)
class Looked:
    """What each picture is, without its thumbnail, or why it cannot be used; and, by number, which earlier
    picture it is a copy of: byte for byte where their `file` digests are equal, otherwise nearly."""

    seen: list[Facts | Flaw]
    copies: dict[int, int]


def look_through(
    given: Sequence[Given], pictures: Sequence[Named], limits: ImageLimits, workers: int | None = None
) -> Looked:
    """Look at every picture in worker processes, by default as many as there are cores. Raises PoolBroken."""
    with tempfile.TemporaryFile() as wall:
        with (
            DecoderPool(limits, work=LOOK, workers=workers) as pool,
            Progress("pictures looked at", len(pictures)) as progress,
        ):
            looking = _Looking(given, pictures, limits, wall, progress)
            for requests in (looking.first_round(), looking.second_round()):
                for answer in pool.facts(requests):
                    looking.take(answer)
        return Looked(looking.seen(), looking.copies())


class _Looking:
    """The pictures on their way. `wall` gets a thumbnail for each file that differs from all before it."""

    def __init__(
        self,
        given: Sequence[Given],
        pictures: Sequence[Named],
        limits: ImageLimits,
        wall: IO[bytes],
        progress: Progress,
    ) -> None:
        self._given, self._pictures, self._limits = given, pictures, limits
        self._wall, self._progress = wall, progress
        self._answers: dict[int, Facts | Flaw] = {}
        self._asked: deque[int] = deque()
        # The first file of each size in bytes, those of them that were read, and the first with each digest.
        self._sizes: dict[int, int] = {}
        self._digested: set[int] = set()
        self._digests: dict[bytes, int] = {}
        # A picture whose bytes are those of an earlier one: (its number, the earlier one's, their digest).
        self._again: list[tuple[int, int, bytes]] = []
        # The pictures on the wall, in their order there.
        self._hung: dict[bytes, int] = {}

    def seen(self) -> list[Facts | Flaw]:
        """What is known of each picture, after both rounds."""
        return [self._answers[number] for number in range(len(self._pictures))]

    def first_round(self) -> Iterator[Request]:
        """Every picture but those that cannot be opened at all and those that repeat the bytes of another."""
        for number, picture in enumerate(self._pictures):
            opened = self._opened(number)
            if isinstance(opened, Path):
                facts = file_to_read(opened, picture.path, self._limits)
                if isinstance(facts, Flaw):
                    opened = facts
                elif self._repeats(number, opened, facts.st_size):
                    continue
            if isinstance(opened, Flaw):
                self._note(number, opened)
            else:
                self._asked.append(number)
                yield Request(picture.path, opened)

    def second_round(self) -> Iterator[Request]:
        """Those whose like was refused, in words that name the file, or was changed meanwhile."""
        for number, earlier, digest in self._again:
            answer, opened = self._answers[earlier], self._opened(number)
            if isinstance(answer, Facts) and answer.file == digest:
                self._note(number, answer)
            elif isinstance(opened, Flaw):
                self._note(number, opened)
            else:
                self._asked.append(number)
                yield Request(self._pictures[number].path, opened)

    def take(self, answer: Facts | Flaw) -> None:
        """What a worker saw in the picture that was asked first of those without an answer."""
        number = self._asked.popleft()
        if isinstance(answer, Flaw):
            self._note(number, answer)
            return
        if answer.file not in self._hung:
            self._hung[answer.file] = number
            self._wall.write(answer.thumbnail)
        self._note(number, replace(answer, thumbnail=b""))

    def copies(self) -> dict[int, int]:
        """Every picture that is in one cluster with an earlier one, and the first of its cluster."""
        clusters = Clusters(len(self._pictures))
        files = {number: each.file for number, each in self._answers.items() if isinstance(each, Facts)}
        clusters.join(
            np.fromiter(files, np.int64), np.array([self._hung[file] for file in files.values()], np.int64)
        )
        hung = np.array(list(self._hung.values()), np.int64)
        near = find_near(self._fingerprints(hung))
        clusters.join(hung[near.first], hung[near.second])
        firsts = clusters.labels().tolist()
        return {number: first for number, first in enumerate(firsts) if first != number}

    def _fingerprints(self, hung: npt.NDArray[np.int64]) -> Fingerprints:
        if not len(hung):
            return Fingerprints(np.zeros((0, SIDE, SIDE), np.uint8), np.zeros((0, 2), np.int32))
        self._wall.flush()
        thumbnails = np.memmap(self._wall, np.uint8, "r", shape=(len(hung), SIDE, SIDE))
        answers = [self._answers[number] for number in hung.tolist()]
        sizes = [(each.width, each.height) for each in answers if isinstance(each, Facts)]
        return Fingerprints(thumbnails, np.array(sizes, np.int32))

    def _opened(self, number: int) -> Path | bytes | Drawing | Flaw:
        picture = self._pictures[number]
        source = self._given[picture.source].source
        assert source
        return source.picture(picture.path)

    def _repeats(self, number: int, file: Path, size: int) -> bool:
        """Whether the file is, byte for byte, an earlier one: reading is cheaper than decoding."""
        first = self._sizes.setdefault(size, number)
        if first == number:
            return False
        if first not in self._digested:
            self._digested.add(first)
            self._digest(first, self._opened(first))
        digest = self._digest(number, file)
        if not digest or self._digests[digest] == number:
            return False
        self._again.append((number, self._digests[digest], digest))
        return True

    def _digest(self, number: int, file: Path | bytes | Drawing | Flaw) -> bytes:
        """The digest of a file, noted for the first that has it; b"" where it cannot be read."""
        if not isinstance(file, Path):
            return b""
        try:
            digest = file_digest(read_file(file, self._limits.max_bytes))
        except (OSError, BadImage):
            # A worker comes to the same, and says it in the words of a refusal.
            return b""
        self._digests.setdefault(digest, number)
        return digest

    def _note(self, number: int, answer: Facts | Flaw) -> None:
        self._answers[number] = answer
        self._progress.add()
