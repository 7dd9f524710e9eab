"""What is known of pictures that were looked at before, by the digest of their file. Safe to delete."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from data_prep.cache_file import CacheFile
from data_prep.seen import Seen
from data_prep.stamp import Stamp
from lensmith.files import digest_json
from lensmith.images import ImageLimits
from lensmith.provenance import code_digest, package_versions

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    place TEXT PRIMARY KEY, size INTEGER NOT NULL, content_ns INTEGER NOT NULL, any_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, settled INTEGER NOT NULL, file BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_sizes ON files (size);
CREATE TABLE IF NOT EXISTS seen (
    key BLOB PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL, identity BLOB NOT NULL,
    fingerprint BLOB NOT NULL) WITHOUT ROWID;
"""


@functools.cache
def sight_version(limits: ImageLimits) -> bytes:
    """16 bytes: other limits, code or libraries may see another thing in the same bytes."""
    asked = [
        limits.max_bytes,
        limits.max_pixels,
        limits.min_edge,
        code_digest("data_prep.sight"),
        package_versions(("pillow", "numpy")),
    ]
    return bytes.fromhex(digest_json(asked))[:16]


class PictureCache(CacheFile):
    """`<home>/cache/pictures.sqlite`: one process writes at a time, the others wait.

    A picture that was refused is looked at again each time: who mended it must not wait.
    """

    def __init__(self, path: Path, limits: ImageLimits) -> None:
        super().__init__(path, _TABLES)
        self._version = sight_version(limits)

    def file_of(self, path: Path, stamp: Stamp) -> bytes | None:
        """The digest of an unchanged file: it has the stamp that it was read with, which was settled then."""
        found = self._db.execute(
            "SELECT file FROM files WHERE settled"
            " AND (place, size, content_ns, any_ns, inode) = (?, ?, ?, ?, ?)",
            (str(path), stamp.size, stamp.content_ns, stamp.any_ns, stamp.inode),
        ).fetchone()
        return found and found[0]

    def knows_size(self, size: int) -> bool:
        """Whether any file that was seen has this size in bytes."""
        return self._db.execute("SELECT 1 FROM files WHERE size = ? LIMIT 1", (size,)).fetchone() is not None

    def find(self, file: bytes) -> Seen | None:
        """What was seen in a file of this digest."""
        found = self._db.execute(
            "SELECT width, height, identity, fingerprint FROM seen WHERE key = ?", (self._version + file,)
        ).fetchone()
        return found and Seen(found[0], found[1], file, found[2], found[3])

    def keep(self, seen: Iterable[Seen], stamps: Iterable[tuple[Path, Stamp, bytes]]) -> None:
        """Remember what was seen, and which files (path, stamp before it was read, digest) hold it."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)",
            [
                (self._version + each.file, each.width, each.height, each.identity, each.fingerprint)
                for each in seen
            ],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(str(path), *astuple(stamp), file) for path, stamp, file in stamps],
        )
        self._db.execute("COMMIT")
