"""The first taken row with each id, question and picture: what later rows are compared with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

_TABLES = """
CREATE TABLE IF NOT EXISTS first_ids (id TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_questions (
    question BLOB PRIMARY KEY, n INTEGER NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_pictures (identity BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""
_NAMES = ("first_ids", "first_questions", "first_pictures")


class Firsts:
    """Three tables of a workbook."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(_TABLES)

    def forget(self) -> None:
        """Know no row."""
        for table in _NAMES:
            self._db.execute(f"DELETE FROM {table}")

    def note(self, number: int, row: str, question: bytes, answer: bytes, pictures: Iterable[bytes]) -> None:
        """Know a row, by its number, with its id, the digests of question and answer and the identities of
        its pictures."""
        self._db.execute("INSERT OR IGNORE INTO first_ids VALUES (?, ?)", (row, number))
        self._db.execute("INSERT OR IGNORE INTO first_questions VALUES (?, ?, ?)", (question, number, answer))
        self._db.executemany(
            "INSERT OR IGNORE INTO first_pictures VALUES (?, ?)", [(each, number) for each in pictures]
        )

    def with_id(self, row: str) -> int | None:
        """The row of this id."""
        found = self._db.execute("SELECT n FROM first_ids WHERE id = ?", (row,)).fetchone()
        return found and found[0]

    def with_question(self, question: bytes) -> tuple[int, bytes] | None:
        """The row that asks the same, and its answer's digest."""
        return self._db.execute(
            "SELECT n, answer FROM first_questions WHERE question = ?", (question,)
        ).fetchone()

    def with_picture(self, identity: bytes) -> int | None:
        """The first row that shows this picture."""
        found = self._db.execute("SELECT n FROM first_pictures WHERE identity = ?", (identity,)).fetchone()
        return found and found[0]
