"""Small pictures that reports showed, by the digest of what they were made from. Safe to delete."""

from __future__ import annotations

from pathlib import Path

from data_prep.cache_file import CacheFile
from lensmith.files import digest_json
from lensmith.images import ImageLimits
from lensmith.page import Picture
from lensmith.provenance import code_digest, package_versions

_TABLES = """
CREATE TABLE IF NOT EXISTS thumbnails (
    key BLOB PRIMARY KEY, address TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL);
"""


class ThumbnailCache(CacheFile):
    """`<home>/cache/thumbnails.sqlite`: the page of the next preparation mostly shows the same pictures.

    The exam is on no page, so none of its pictures is asked for here.
    """

    def __init__(self, path: Path, limits: ImageLimits) -> None:
        super().__init__(path, _TABLES)
        # Other limits refuse other pictures; other code or libraries make others of the same.
        asked = [
            limits.max_bytes,
            limits.max_pixels,
            limits.min_edge,
            code_digest("data_prep.report.thumbnail"),
            package_versions(("pillow",)),
        ]
        self._version = bytes.fromhex(digest_json(asked))[:16]

    def find(self, digest: bytes) -> Picture | None:
        """The small picture of what has this digest: of a file, or of upright pixels."""
        found = self._db.execute(
            "SELECT address, width, height FROM thumbnails WHERE key = ?", (self._version + digest,)
        ).fetchone()
        return found and Picture(*found)

    def keep(self, digest: bytes, picture: Picture) -> None:
        """Remember it for the next page."""
        self._db.execute(
            "INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?, ?)",
            (self._version + digest, picture.address, picture.width, picture.height),
        )
