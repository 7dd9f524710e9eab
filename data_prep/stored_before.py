"""Which artifact of a home already holds a picture as a split keeps it. Safe to delete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from data_prep.cache_file import CacheFile
from data_prep.picture_cache import sight_version
from data_prep.seen import Seen
from data_prep.split import SplitName
from data_prep.written import Written
from lensmith.artifact import Artifact
from lensmith.dataset import HELD_OUT_FILE, Split, read_held_out, read_split, split_file
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.row_file import RowFile
from lensmith.stored_image import StoredView

_TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    key BLOB PRIMARY KEY, artifact TEXT NOT NULL, split TEXT NOT NULL, place INTEGER NOT NULL,
    png BLOB NOT NULL) WITHOUT ROWID;
"""
_TRAINED: tuple[Split, ...] = ("train", "validation")
_RECORDS_AT_ONCE = 1000
_WHY = "pictures of it that have not changed are prepared again"


@dataclass(frozen=True)
class _Found:
    """Where a picture lies, and 16 bytes of SHA-256 of its PNG as it was proven."""

    rows: RowFile
    place: int
    digest: bytes


class StoredBefore(CacheFile):
    """`<home>/cache/stored.sqlite`: where datasets and exams have each picture, by the digest of its pixels.

    That pictures of an exam are copied is logged with the reads of that exam; its rows are not read.
    """

    def __init__(self, home: Home, limits: ImageLimits) -> None:
        self._home = home
        super().__init__(home.root / "cache/stored.sqlite", _TABLES)
        # Other code or libraries may write the same pixels as other bytes: the dataset's id would be another.
        self._version = sight_version(limits)
        self._opened: dict[tuple[str, SplitName], RowFile | None] = {}
        self._spoiled: set[bytes] = set()

    def find(self, seen: Seen) -> StoredView | None:
        """The picture as `sight.store` gave it to a dataset that is there; None where none has it.

        Nobody has looked whether its bytes are still those: who writes them asks `drop_spoiled` of what was
        written. Until then and until `remember` the answer is the same, whatever another process remembers
        meanwhile: who asks twice relies on it.
        """
        found = self._find(seen.identity)
        if found is None:
            return None
        png = found.rows.image(found.place).png
        return StoredView(seen.identity.hex(), seen.width, seen.height, png, seen.fingerprint)

    def drop_spoiled(self, written: Written) -> bool:
        """Whether any copy in a split that was written is not what it once was; `find` gives it no more."""
        before = len(self._spoiled)
        for name, digest in zip(_names(RowFile(written.path)), written.digests, strict=True):
            identity = bytes.fromhex(name)
            found = self._find(identity)
            if found is not None and found.digest != _short(digest):
                self._spoiled.add(identity)
        return len(self._spoiled) > before

    def _find(self, identity: bytes) -> _Found | None:
        if identity in self._spoiled:
            return None
        if not self._db.in_transaction:
            # Reads until its end see one state of the file.
            self._db.execute("BEGIN")
        found = self._db.execute(
            "SELECT artifact, split, place, png FROM pictures WHERE key = ?", (self._version + identity,)
        ).fetchone()
        rows = found and self._rows(found[0], found[1])
        return _Found(rows, found[2], found[3]) if rows else None

    def _rows(self, key: str, split: SplitName) -> RowFile | None:
        """What was removed once it is open stays mapped."""
        if (key, split) not in self._opened:
            try:
                self._opened[key, split] = self._open(key, split)
            except (OSError, IntegrityError):
                # To say so is the matter of who uses that artifact: here it is only no help.
                self._opened[key, split] = None
        return self._opened[key, split]

    def _open(self, key: str, split: SplitName) -> RowFile | None:
        found = self._home.find("held_out" if split == "held_out" else "dataset", key)
        if found is None:
            return None
        return read_held_out(self._home, found, _WHY) if split == "held_out" else read_split(found, split)

    def remember(self, dataset: Artifact, held_out: Artifact, written: Mapping[SplitName, Written]) -> None:
        """Keep where they have their images, which were all proven as they were `written`."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        # What both hold, which is nothing unless the files changed since, is better copied from the dataset.
        records = chain(
            self._records(held_out, "held_out", written),
            *(self._records(dataset, each, written) for each in _TRAINED),
        )
        # Read before the file is locked: another process waits a minute at most.
        while batch := list(islice(records, _RECORDS_AT_ONCE)):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", batch)
            self._db.execute("COMMIT")

    def _records(
        self, artifact: Artifact, split: SplitName, written: Mapping[SplitName, Written]
    ) -> Iterator[tuple[bytes, str, str, int, bytes]]:
        path = artifact.path / (HELD_OUT_FILE if split == "held_out" else split_file(split))
        # An artifact that was there before is the same; were it not, no copy from it would have its digest.
        both = zip(_names(RowFile(path)), written[split].digests, strict=False)
        for at, (name, digest) in enumerate(both):
            yield self._version + bytes.fromhex(name), artifact.manifest.key, split, at, _short(digest)


def _names(rows: RowFile) -> Iterator[str]:
    """The digest of each picture's pixels, by place."""
    return (name for (names,) in rows.image_columns("digest") for name in names.to_pylist())


def _short(digest: np.void) -> bytes:
    return digest.tobytes()[:16]
