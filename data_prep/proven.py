"""What stored pictures were proven to show, by the digest of their bytes. Safe to delete."""

from __future__ import annotations

from collections.abc import Iterable

from data_prep.cache_file import CacheFile
from data_prep.picture_cache import sight_version
from lensmith.home import Home
from lensmith.images import ImageLimits

_TABLES = "CREATE TABLE IF NOT EXISTS proven (key BLOB PRIMARY KEY, identity BLOB NOT NULL) WITHOUT ROWID;"


class Proven(CacheFile):
    """`<home>/cache/proven.sqlite`: equal bytes show equal pixels; no picture is decoded for a proof twice.

    Keeps digests alone: nothing of an exam can be seen in it.
    """

    def __init__(self, home: Home, limits: ImageLimits) -> None:
        super().__init__(home.root / "cache/proven.sqlite", _TABLES)
        # Other code or libraries may see another thing in the same bytes.
        self._version = sight_version(limits)

    def find(self, digest: bytes) -> bytes | None:
        """The digest of the pixels that a PNG shows whose own digest this is, where it was found before; both
        are 32 bytes of SHA-256."""
        found = self._db.execute(
            "SELECT identity FROM proven WHERE key = ?", (self._version + digest,)
        ).fetchone()
        return found and found[0]

    def keep(self, shown: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember what pictures showed when they were decoded: (digest of the PNG, digest of the pixels)."""
        entries = [(self._version + digest, identity) for digest, identity in shown]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO proven VALUES (?, ?)", entries)
        self._db.execute("COMMIT")
