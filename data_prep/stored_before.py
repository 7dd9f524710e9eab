"""Which dataset of a home already holds a picture as a split keeps it. Safe to delete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Self

from data_prep.cache_file import open_cache
from data_prep.picture_cache import sight_version
from data_prep.seen import Seen
from lensmith.artifact import Artifact
from lensmith.dataset import Split, split_file
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.row_file import RowFile
from lensmith.stored_image import StoredImage

_TABLES = """
CREATE TABLE IF NOT EXISTS stored (
    key BLOB PRIMARY KEY, dataset TEXT NOT NULL, split TEXT NOT NULL, place INTEGER NOT NULL,
    png BLOB NOT NULL) WITHOUT ROWID;
"""
_SPLITS: tuple[Split, ...] = ("train", "validation")
_RECORDS_AT_ONCE = 1000


class StoredBefore:
    """`<home>/cache/stored.sqlite`: the place of each picture of the datasets, by the digest of its pixels.

    Exams are left out: their rows are read with a reason, or not at all.
    """

    def __init__(self, home: Home, limits: ImageLimits) -> None:
        self._home = home
        self._db = open_cache(home.root / "cache/stored.sqlite", _TABLES)
        # Other code or libraries may write the same pixels as other bytes: the dataset's id would be another.
        self._version = sight_version(limits)
        self._opened: dict[tuple[str, str], RowFile | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def find(self, seen: Seen) -> StoredImage | None:
        """The picture as `sight.store` gives it; None where no dataset that is there has it whole.

        The same answer until `remember`, whatever another process remembers meanwhile: who asks twice relies
        on it.
        """
        if not self._db.in_transaction:
            # Reads until its end see one state of the file.
            self._db.execute("BEGIN")
        found = self._db.execute(
            "SELECT dataset, split, place, png FROM stored WHERE key = ?", (self._version + seen.identity,)
        ).fetchone()
        rows = found and self._rows(found[0], found[1])
        if rows is None:
            return None
        png = rows.png(found[2])
        if _digest(png) != found[3]:
            return None
        return StoredImage(seen.identity.hex(), seen.width, seen.height, png, seen.fingerprint)

    def _rows(self, key: str, split: Split) -> RowFile | None:
        """A dataset that was removed once it is open stays mapped."""
        if (key, split) not in self._opened:
            path = self._home.artifact_path("dataset", key) / split_file(split)
            try:
                self._opened[key, split] = RowFile(path) if path.exists() else None
            except IntegrityError:
                # To say so is the matter of who uses that dataset: here it is only no help.
                self._opened[key, split] = None
        return self._opened[key, split]

    def remember(self, dataset: Artifact) -> None:
        """Keep where a dataset, whose images were all proven, has them."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        records = self._records(dataset)
        # Read before the file is locked: another process waits a minute at most.
        while batch := list(islice(records, _RECORDS_AT_ONCE)):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO stored VALUES (?, ?, ?, ?, ?)", batch)
            self._db.execute("COMMIT")

    def _records(self, dataset: Artifact) -> Iterator[tuple[bytes, str, str, int, bytes]]:
        for split in _SPLITS:
            for at, image in enumerate(RowFile(dataset.path / split_file(split)).images()):
                key = self._version + bytes.fromhex(image.digest)
                yield key, dataset.manifest.key, split, at, _digest(image.png)


def _digest(png: bytes) -> bytes:
    return hashlib.sha256(png).digest()[:16]
