"""Which artifact of a home already holds a picture as a split keeps it. Safe to delete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain, islice

from data_prep.cache_file import CacheFile
from data_prep.picture_cache import sight_version
from data_prep.seen import Seen
from data_prep.split import SplitName
from lensmith.artifact import Artifact
from lensmith.dataset import HELD_OUT_FILE, Split, read_held_out, read_split, split_file
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.row_file import RowFile
from lensmith.stored_image import StoredImage

_TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    key BLOB PRIMARY KEY, artifact TEXT NOT NULL, split TEXT NOT NULL, place INTEGER NOT NULL,
    png BLOB NOT NULL) WITHOUT ROWID;
"""
_TRAINED: tuple[Split, ...] = ("train", "validation")
_RECORDS_AT_ONCE = 1000
_WHY = "pictures of it that have not changed are prepared again"


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

    def find(self, seen: Seen) -> StoredImage | None:
        """The picture as `sight.store` gives it; None where no dataset that is there has it whole.

        The same answer until `remember`, whatever another process remembers meanwhile: who asks twice relies
        on it.
        """
        if not self._db.in_transaction:
            # Reads until its end see one state of the file.
            self._db.execute("BEGIN")
        found = self._db.execute(
            "SELECT artifact, split, place, png FROM pictures WHERE key = ?", (self._version + seen.identity,)
        ).fetchone()
        rows = found and self._rows(found[0], found[1])
        if rows is None:
            return None
        png = rows.png(found[2])
        if _digest(png) != found[3]:
            return None
        return StoredImage(seen.identity.hex(), seen.width, seen.height, png, seen.fingerprint)

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

    def remember(self, dataset: Artifact, held_out: Artifact) -> None:
        """Keep where they have their images, which were all proven."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        # What both hold, which is nothing unless the files changed since, is better copied from the dataset.
        records = chain(
            self._records(held_out, "held_out"), *(self._records(dataset, each) for each in _TRAINED)
        )
        # Read before the file is locked: another process waits a minute at most.
        while batch := list(islice(records, _RECORDS_AT_ONCE)):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", batch)
            self._db.execute("COMMIT")

    def _records(self, artifact: Artifact, split: SplitName) -> Iterator[tuple[bytes, str, str, int, bytes]]:
        path = artifact.path / (HELD_OUT_FILE if split == "held_out" else split_file(split))
        for at, image in enumerate(RowFile(path).images()):
            key = self._version + bytes.fromhex(image.digest)
            yield key, artifact.manifest.key, split, at, _digest(image.png)


def _digest(png: bytes) -> bytes:
    return hashlib.sha256(png).digest()[:16]
