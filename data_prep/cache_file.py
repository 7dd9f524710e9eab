"""A SQLite file under a home's cache: several processes may use it, one writes at a time. Safe to delete."""

from __future__ import annotations

import sqlite3
from pathlib import Path

# How long one process waits for another that writes, in seconds.
PATIENCE_S = 60


def open_cache(path: Path, tables: str) -> sqlite3.Connection:
    """The file with its `tables` (SQL that creates what is not there), made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    # A power cut may lose the last words, never the file: what is not remembered is found out again.
    db.execute("PRAGMA synchronous=NORMAL")
    db.executescript(tables)
    return db
