"""Thumbnails and details of the pictures that taken rows show: two files, written once in a preparation.

Two steps compare pictures, with those of earlier exams and with each other. Both map the one file and read in
the other: memory does not grow by 4 KB a picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.similar.details import Details
from data_prep.similar.search import Fingerprints
from data_prep.similar.thumbnail import SIDE, Thumbnails
from data_prep.workbook import Workbook

Numbers = npt.NDArray[np.int64]
_BYTES = SIDE * SIDE
_BATCH = 1024
# A picture's identity: the SHA-256 of its pixels.
_IDENTITY = "V32"


@dataclass(frozen=True)
class _Hung:
    """Row and picture of every showing, int64 [showings]; identity V32, (width, height) int32 and detail of
    every picture; the file, uint8 [room + pictures, 64, 64]."""

    rows: Numbers
    places: Numbers
    identities: npt.NDArray[np.void]
    sizes: npt.NDArray[np.int32]
    details: Details
    wall: Thumbnails


class ThumbnailFile:
    """Every picture that a taken row shows, once, in the order of the rows; written when first asked for.

    In front there is room for the pictures of an exam, at most `room`. Rows that are refused later are to be
    told to `leave_out`.
    """

    def __init__(self, book: Workbook, path: Path, room: int) -> None:
        self._book, self._path, self._room = book, path, room
        self._details = path.with_name(f"{path.name}-fine")

    @cached_property
    def _hung(self) -> _Hung:
        rows: list[int] = []
        names = bytearray()
        for number, identity in self._book.pictures.taken_pictures():
            rows.append(number)
            names += identity
        every = np.frombuffer(bytes(names), _IDENTITY)
        _, first, which = np.unique(every, return_index=True, return_inverse=True)
        # By first appearance, not by digest.
        order = np.argsort(first)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        sizes, details, wall = self._write(first[order])
        shown = np.array(rows, np.int64)
        return _Hung(shown, place[which.reshape(-1)], every[first[order]], sizes, details, wall)

    def _write(self, first: Numbers) -> tuple[npt.NDArray[np.int32], Details, Thumbnails]:
        """Write the pictures of the showings `first`, ascending, behind the room."""
        sizes = np.zeros((len(first), 2), np.int32)
        lengths = np.zeros(len(first), np.int64)
        shape = (self._room + len(first), SIDE, SIDE)
        wanted = iter([*first.tolist(), -1])
        waiting, done = next(wanted), 0
        with self._path.open("wb") as stream, self._details.open("wb") as details:
            stream.seek(self._room * _BYTES)
            for at, (width, height, fingerprint) in enumerate(self._book.pictures.taken_fingerprints()):
                if at == waiting:
                    stream.write(fingerprint[:_BYTES])
                    lengths[done] = details.write(fingerprint[_BYTES:])
                    sizes[done] = width, height
                    waiting, done = next(wanted), done + 1
            stream.truncate(shape[0] * _BYTES)
        # No file of no bytes can be mapped.
        wall = np.memmap(self._path, np.uint8, "r+", shape=shape) if shape[0] else np.zeros(shape, np.uint8)
        return sizes, Details(self._details, np.cumsum(lengths) - lengths, lengths), wall

    @property
    def rows(self) -> Numbers:
        """The row of each showing, ascending: a row has one for each of its pictures."""
        return self._hung.rows

    @property
    def places(self) -> Numbers:
        """What each showing shows, by its place in `pictures`."""
        return self._hung.places

    @property
    def pictures(self) -> Fingerprints:
        """Every picture."""
        return Fingerprints(self._hung.wall[self._room :], self._hung.sizes, self._hung.details)

    def identity(self, place: int) -> bytes:
        """The identity of a picture."""
        return self._hung.identities[place].tobytes()

    def behind(self, sizes: npt.NDArray[np.int32], prints: Iterable[bytes]) -> Fingerprints:
        """An exam's pictures, then these; valid until the next call.

        sizes: (width, height) int32 [n, 2] of as many as there are fingerprints, at most `room`.
        """
        hung, begin = self._hung, self._room - len(sizes)
        lengths = np.zeros(len(sizes), np.int64)
        # Behind the details of these pictures, over those of another exam.
        end = int((hung.details.begins + hung.details.lengths).max(initial=0))
        with self._details.open("r+b") as details:
            details.seek(end)
            for at, each in enumerate(prints):
                hung.wall[begin + at] = np.frombuffer(each[:_BYTES], np.uint8).reshape(SIDE, SIDE)
                lengths[at] = details.write(each[_BYTES:])
        exam = Details(self._details, np.cumsum(lengths) - lengths + end, lengths)
        sizes = np.concatenate([sizes, hung.sizes])
        return Fingerprints(hung.wall[begin:], sizes, exam.before(hung.details))

    def leave_out(self, rows: Iterable[int]) -> None:
        """Take down what only these rows show."""
        old = self._hung
        stays = ~np.isin(old.rows, np.fromiter(rows, np.int64))
        kept, places = np.unique(old.places[stays], return_inverse=True)
        hung = old.wall[self._room :]
        # Places only ever move to the front: nothing is written over before it is read.
        for at in range(0, len(kept), _BATCH):
            batch = kept[at : at + _BATCH]
            hung[at : at + len(batch)] = hung[batch]
        self._hung = _Hung(
            old.rows[stays],
            places.reshape(-1),
            old.identities[kept],
            old.sizes[kept],
            old.details.of(kept),
            old.wall[: self._room + len(kept)],
        )
