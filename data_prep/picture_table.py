"""Tables of the workbook: what is known so far of pictures, and which row shows which, at what size.

A picture is one path of one source, whatever the number of rows that show it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from data_prep.refusal import Flaw
from data_prep.row_text import dump_flaws, load_flaws
from data_prep.seen import Seen
from data_prep.videos.names import FRAMES
from lensmith.stored_image import StoredImage

_TABLES = f"""
CREATE TABLE IF NOT EXISTS pictures (
    p INTEGER PRIMARY KEY, source INTEGER NOT NULL, path TEXT NOT NULL, looked INTEGER NOT NULL DEFAULT 0,
    width INTEGER, height INTEGER, file BLOB, identity BLOB, fingerprint BLOB, flaw TEXT,
    UNIQUE (source, path));
CREATE TABLE IF NOT EXISTS shown (n INTEGER NOT NULL, at INTEGER NOT NULL, p INTEGER NOT NULL,
    fit_width INTEGER, fit_height INTEGER, PRIMARY KEY (n, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reduced (
    r INTEGER PRIMARY KEY, p INTEGER NOT NULL, identity BLOB NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, digest TEXT, png BLOB, fingerprint BLOB, UNIQUE (identity, width, height));
CREATE VIEW IF NOT EXISTS sizes AS SELECT n, at, COALESCE(fit_width, width) AS width,
    COALESCE(fit_height, height) AS height FROM shown JOIN pictures USING (p) WHERE path NOT LIKE '{FRAMES}';
"""
_PAGE = 512


@dataclass(frozen=True)
class Picture:
    """A picture to look at: its number, the number of its source, and its path there."""

    number: int
    source: int
    path: str


class PictureTable:
    """Four tables of a workbook; queries about taken rows join its `rows`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(_TABLES)

    def show(self, number: int, source: int, paths: Iterable[str]) -> None:
        """Say that a row shows the pictures at these paths of its source, in this order."""
        for at, path in enumerate(paths):
            self._db.execute("INSERT OR IGNORE INTO pictures (source, path) VALUES (?, ?)", (source, path))
            self._db.execute(
                "INSERT INTO shown (n, at, p) SELECT ?, ?, p FROM pictures WHERE source = ? AND path = ?",
                (number, at, source, path),
            )

    def unseen(self, limit: int, after: int) -> list[Picture]:
        """At most `limit` pictures that nobody looked at yet, in the order of the rows, after one number."""
        found = self._db.execute(
            "SELECT p, source, path FROM pictures WHERE NOT looked AND p > ? ORDER BY p LIMIT ?",
            (after, limit),
        )
        return [Picture(*each) for each in found]

    def progress(self) -> tuple[int, int]:
        """(all pictures, pictures looked at)."""
        return self._db.execute("SELECT COUNT(*), COALESCE(SUM(looked), 0) FROM pictures").fetchone()

    def saw(self, facts: Iterable[tuple[int, Seen | Flaw]]) -> None:
        """Write down what looking at pictures gave, all or none."""
        self._db.execute("BEGIN")
        for number, each in facts:
            if isinstance(each, Flaw):
                self._db.execute(
                    "UPDATE pictures SET looked = 1, identity = NULL, flaw = ? WHERE p = ?",
                    (dump_flaws([each]), number),
                )
            else:
                self._db.execute(
                    "UPDATE pictures SET looked = 1, width = ?, height = ?, file = ?, identity = ?,"
                    " fingerprint = ? WHERE p = ?",
                    (each.width, each.height, each.file, each.identity, each.fingerprint, number),
                )
        self._db.execute("COMMIT")

    def shown_by(self, number: int) -> list[Seen | Flaw]:
        """What is known of the pictures of a row, in their order."""
        found = self._db.execute(
            "SELECT width, height, file, identity, fingerprint, flaw FROM shown JOIN pictures USING (p)"
            " WHERE n = ? ORDER BY at",
            (number,),
        )
        return [
            load_flaws(flaw)[0] if flaw else Seen(width, height, file, identity, fingerprint)
            for width, height, file, identity, fingerprint, flaw in found
        ]

    def paths(self, number: int) -> tuple[str, ...]:
        """The paths of the pictures that a row shows, each once."""
        found = self._db.execute(
            "SELECT path FROM shown JOIN pictures USING (p) WHERE n = ? ORDER BY at", (number,)
        )
        return tuple(dict.fromkeys(path for (path,) in found))

    def reduce(self, number: int, sizes: Sequence[tuple[int, int]]) -> None:
        """Say at which (width, height) a row shows its pictures."""
        for at, (width, height) in enumerate(sizes):
            place = {"n": number, "at": at, "width": width, "height": height}
            self._db.execute(
                "UPDATE shown SET fit_width = :width, fit_height = :height WHERE n = :n AND at = :at"
                " AND EXISTS (SELECT 1 FROM pictures WHERE p = shown.p"
                " AND (width, height) != (:width, :height))",
                place,
            )
            self._db.execute(
                "INSERT OR IGNORE INTO reduced (p, identity, width, height) SELECT p, identity, fit_width,"
                " fit_height FROM shown JOIN pictures USING (p)"
                " WHERE n = :n AND at = :at AND fit_width IS NOT NULL",
                place,
            )

    def forget_sizes(self) -> None:
        """Every row shows every picture at its own size; what was made of one is kept."""
        self._db.execute("UPDATE shown SET fit_width = NULL, fit_height = NULL")

    def to_reduce(self) -> Iterator[tuple[Picture, bytes, tuple[int, int]]]:
        """Picture, identity and (width, height) of all that is to be made smaller and was not yet, in order;
        read in pages, so that the caller may keep what it makes while it goes on."""
        query = (
            "SELECT r, p, source, path, reduced.identity, reduced.width, reduced.height FROM reduced"
            " JOIN pictures USING (p) WHERE png IS NULL AND r > ? ORDER BY r LIMIT ?"
        )
        after = 0
        while page := self._db.execute(query, (after, _PAGE)).fetchall():
            for _, number, source, path, identity, width, height in page:
                yield Picture(number, source, path), identity, (width, height)
            after = page[-1][0]

    def keep_reduced(self, identity: bytes, image: StoredImage) -> None:
        """Keep a picture as it is once it is reduced."""
        self._db.execute(
            "UPDATE reduced SET digest = ?, png = ?, fingerprint = ?"
            " WHERE (identity, width, height) = (?, ?, ?)",
            (image.digest, image.png, image.fingerprint, identity, image.width, image.height),
        )

    def reduced(self, identity: bytes, size: tuple[int, int]) -> StoredImage:
        """A picture, by its identity, as it is at a size (width, height) that it was reduced to."""
        digest, png, fingerprint = self._db.execute(
            "SELECT digest, png, fingerprint FROM reduced WHERE (identity, width, height) = (?, ?, ?)",
            (identity, *size),
        ).fetchone()
        return StoredImage(digest, *size, png, fingerprint)

    def reduced_identity(self, identity: bytes, size: tuple[int, int]) -> bytes:
        """The digest of the pixels of what `reduced` gives."""
        (digest,) = self._db.execute(
            "SELECT digest FROM reduced WHERE (identity, width, height) = (?, ?, ?)", (identity, *size)
        ).fetchone()
        return bytes.fromhex(digest)

    def reduced_by(self, number: int) -> list[Seen | None]:
        """What a row shows of each picture that it shows reduced; None for one that it shows as it is."""
        found = self._db.execute(
            "SELECT fit_width, fit_height, digest FROM shown JOIN pictures USING (p) LEFT JOIN reduced ON"
            " (reduced.identity, reduced.width, reduced.height) = (pictures.identity, fit_width, fit_height)"
            " WHERE n = ? ORDER BY at",
            (number,),
        )
        return [
            None if width is None else Seen(width, height, b"", bytes.fromhex(digest))
            for width, height, digest in found
        ]

    def reduced_in(self, split: str) -> dict[bytes, set[tuple[int, int] | None]]:
        """The sizes at which a split shows each picture that one of its rows shows reduced, by identity."""
        sizes: dict[bytes, set[tuple[int, int] | None]] = {}
        found = self._db.execute(
            "WITH mine AS (SELECT identity, fit_width, fit_height FROM rows JOIN shown USING (n)"
            " JOIN pictures USING (p) WHERE taken AND split = ?)"
            " SELECT DISTINCT identity, fit_width, fit_height FROM mine WHERE identity IN"
            " (SELECT identity FROM mine WHERE fit_width IS NOT NULL)",
            (split,),
        )
        for identity, width, height in found:
            sizes.setdefault(identity, set()).add(None if width is None else (width, height))
        return sizes

    def first_shown(self, split: str) -> Iterator[tuple[Picture, Seen]]:
        """The pictures that the rows of a split show, each identity once, in the order of the rows."""
        last: tuple[int, int] = (-1, -1)
        query = (
            "SELECT n, at, p, pictures.source, path, width, height, file, identity, fingerprint"
            " FROM rows JOIN shown USING (n) JOIN pictures USING (p)"
            " WHERE split = ? AND taken AND (n, at) > (?, ?) ORDER BY n, at LIMIT ?"
        )
        shown: set[bytes] = set()
        while page := self._db.execute(query, (split, *last, _PAGE)).fetchall():
            for n, at, p, source, path, *seen in page:
                last = (n, at)
                if seen[3] not in shown:
                    shown.add(seen[3])
                    yield Picture(p, source, path), Seen(*seen)

    def count_shown(self, split: str) -> tuple[int, int]:
        """How many pictures `first_shown` gives, and how many pixels they have together."""
        query = (
            "SELECT COUNT(*), COALESCE(SUM(width * height), 0) FROM (SELECT DISTINCT identity, width, height"
            " FROM rows JOIN shown USING (n) JOIN pictures USING (p) WHERE split = ? AND taken)"
        )
        return self._db.execute(query, (split,)).fetchone()

    def written(self, source: int) -> Iterator[tuple[str, str]]:
        """(path, digest of its pixels) of every picture of a source that a taken row shows, by path."""
        found = self._db.execute(
            "SELECT path, identity FROM pictures WHERE source = ? AND p IN"
            " (SELECT p FROM shown JOIN rows USING (n) WHERE taken) ORDER BY path",
            (source,),
        )
        return ((path, identity.hex()) for path, identity in found)

    def taken_pictures(self) -> Iterator[tuple[int, bytes]]:
        """(row, identity) of every picture of every taken row, in order."""
        return iter(
            self._db.execute(
                "SELECT n, identity FROM rows JOIN shown USING (n) JOIN pictures USING (p)"
                " WHERE taken ORDER BY n, at"
            )
        )

    def taken_fingerprints(self) -> Iterator[tuple[int, int, bytes]]:
        """(width, height, fingerprint) of the same pictures."""
        return iter(
            self._db.execute(
                "SELECT width, height, fingerprint FROM rows JOIN shown USING (n) JOIN pictures USING (p)"
                " WHERE taken ORDER BY n, at"
            )
        )
