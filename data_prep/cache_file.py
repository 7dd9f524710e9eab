"""A SQLite file under a home's cache: several processes may use it, one writes at a time. Safe to delete."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

# How long one process waits for another that writes, in seconds.
PATIENCE_S = 60


class CacheFile:
    """The file with its `tables` (SQL that creates what is not there), made where it is missing.

    A context manager: leaving it closes the file.
    """

    def __init__(self, path: Path, tables: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        # A power cut may lose the last words, never the file: what is not remembered is found out again.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(tables)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
