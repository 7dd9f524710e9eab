"""The registry: which release stands in which channel, and the log of every act that put one there.

SQLite in `<home>/registry.sqlite`. Every move is one transaction; the log can only grow.
"""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lensmith.errors import GateRefused, InputError, IntegrityError, Problem
from lensmith.home import Home

ActKind = Literal["promotion", "rollback"]
Channel = Literal["staging", "production"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
REGISTRY_FILE = "registry.sqlite"
SCHEMA = 2
# How long another process's transaction is waited for, in seconds.
_PATIENCE = 30.0

_TABLES = """
CREATE TABLE releases (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    subject TEXT NOT NULL,
    profile TEXT NOT NULL
);
CREATE TABLE acts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('promotion', 'rollback')),
    name TEXT NOT NULL,
    channel TEXT NOT NULL CHECK (channel IN ('staging', 'production')),
    who TEXT NOT NULL CHECK (trim(who) <> ''),
    why TEXT NOT NULL CHECK (trim(why) <> ''),
    before TEXT REFERENCES releases (id),
    after TEXT NOT NULL REFERENCES releases (id),
    policy TEXT
);
CREATE TABLE channels (
    name TEXT NOT NULL,
    channel TEXT NOT NULL,
    act INTEGER NOT NULL REFERENCES acts (seq),
    PRIMARY KEY (name, channel)
);
CREATE TRIGGER acts_stay BEFORE UPDATE ON acts BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
CREATE TRIGGER acts_remain BEFORE DELETE ON acts BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
"""
# From schema 1: its acts do not say which policy they passed.
_FROM_1 = "ALTER TABLE acts ADD COLUMN policy TEXT;"


@dataclass(frozen=True)
class Entry:
    """A release as the registry knows it: even a release whose files are gone can be named."""

    id: str
    name: str
    subject: str
    profile: str


@dataclass(frozen=True)
class Act:
    """One line of the log: who put `release` into a channel in place of `before`, when (UTC) and why.

    policy: digest of the gate policy that a promotion passed; None for a rollback.
    """

    seq: int
    at: str
    kind: ActKind
    name: str
    channel: Channel
    who: str
    why: str
    before: str | None
    release: str
    policy: str | None


def channel_named(text: str) -> Channel:
    """The channel called `text`. Raises InputError for anything else."""
    for channel in CHANNELS:
        if text == channel:
            return channel
    raise InputError(f"no channel is called {text!r}: one of {', '.join(CHANNELS)}")


def parse_reference(text: str) -> tuple[str, Channel]:
    """`bank-forms@production` as name and channel. Raises InputError for anything else."""
    name, at, channel = text.partition("@")
    if not name or not at:
        raise InputError(f"{text!r} is not NAME@{' or NAME@'.join(CHANNELS)}")
    return name, channel_named(channel)


class Registry:
    """An open registry; get one with `Registry.open(home)`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    @contextlib.contextmanager
    def open(cls, home: Home) -> Iterator[Registry]:
        """The registry of `home`, made when there is none yet.

        Raises InputError for one of a newer schema, IntegrityError for a file that is no registry.
        """
        path = home.root / REGISTRY_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        try:
            with _readable(path):
                _prepare(connection, home)
                _check_whole(connection, path)
            yield cls(connection, path)
        finally:
            connection.close()

    def find_current(self, name: str, channel: Channel) -> Act | None:
        """The act that put there what stands in a channel now; None while nothing does."""
        row = self._connection.execute(
            "SELECT acts.* FROM channels JOIN acts ON acts.seq = channels.act"
            " WHERE channels.name = ? AND channels.channel = ?",
            (name, channel),
        ).fetchone()
        return _act(row) if row else None

    def current(self, name: str, channel: Channel) -> Act:
        """As `find_current`. Raises InputError, with what there is, where nothing stands in the channel."""
        act = self.find_current(name, channel)
        if act is None:
            held = self._connection.execute("SELECT name, channel FROM channels ORDER BY name, channel")
            there = [Problem(f"there is {each}@{where}") for each, where in held.fetchall()]
            raise InputError(
                f"nothing was promoted to {name}@{channel}",
                there or [Problem("the registry is empty", mend="lensmith promote RELEASE --to CHANNEL")],
            )
        return act

    def previous(self, name: str, channel: Channel) -> str | None:
        """Id of the release that a rollback restores: a promotion stacks, a rollback takes off the top."""
        stack: list[str] = []
        for act in self.acts(name, channel):
            if act.kind == "promotion":
                stack.append(act.release)
            else:
                stack.pop()
        return stack[-2] if len(stack) > 1 else None

    def acts(self, name: str | None = None, channel: Channel | None = None) -> list[Act]:
        """The log, oldest first: all of it, or that of one name, or of one channel of a name."""
        rows = self._connection.execute(
            "SELECT * FROM acts WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR channel = ?2)"
            " ORDER BY seq",
            (name, channel),
        )
        return [_act(row) for row in rows]

    def entry(self, release: str) -> Entry:
        """What the registry knows of a release that was promoted once."""
        row = self._connection.execute("SELECT * FROM releases WHERE id = ?", (release,)).fetchone()
        if row is None:
            raise InputError(f"release {release[:12]} was never promoted")
        return Entry(*row)

    def move(
        self,
        kind: ActKind,
        entry: Entry,
        channel: Channel,
        who: str,
        why: str,
        expected: Act | None,
        policy: str | None = None,
    ) -> Act:
        """Put `entry` into a channel, all or nothing, and log it; policy: digest of the one that was passed.

        expected: what the decision was made on, as `find_current` gave it. Raises GateRefused when another
        act came between: two managers never overwrite each other unseen.
        """
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self._transaction():
            now = self.find_current(entry.name, channel)
            if now != expected:
                raise GateRefused(f"{entry.name}@{channel} changed meanwhile", _change(now))
            before = now.release if now else None
            self._connection.execute("INSERT OR IGNORE INTO releases VALUES (?, ?, ?, ?)", _row(entry))
            values = (at, kind, entry.name, channel, who, why, before, entry.id, policy)
            cursor = self._connection.execute(
                "INSERT INTO acts (at, kind, name, channel, who, why, before, after, policy)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            self._connection.execute(
                "INSERT OR REPLACE INTO channels VALUES (?, ?, ?)", (entry.name, channel, cursor.lastrowid)
            )
        return self.current(entry.name, channel)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock before the first read, so that no one moves in between.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _row(entry: Entry) -> tuple[str, str, str, str]:
    return (entry.id, entry.name, entry.subject, entry.profile)


def _act(row: tuple) -> Act:
    return Act(*row)


def _change(now: Act | None) -> list[Problem]:
    if now is None:
        return [Problem("nothing stands there any more")]
    text = f"{now.who} put release {now.release[:12]} there at {now.at}: {now.why}"
    return [Problem(text, mend="look at it, then decide again")]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise IntegrityError(f"{path} cannot be read as a registry: {error}") from error


def _prepare(connection: sqlite3.Connection, home: Home) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # FULL: a promotion that was answered survives a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    if _version(connection) < SCHEMA:
        with home.locked("registry-schema"):
            version = _version(connection)
            if version < SCHEMA:
                connection.execute("PRAGMA journal_mode = WAL")
                change = _FROM_1 if version else _TABLES
                connection.executescript(f"BEGIN IMMEDIATE; {change} PRAGMA user_version = {SCHEMA}; COMMIT;")
    if (version := _version(connection)) > SCHEMA:
        raise InputError(
            f"the registry of {home.root} has schema {version}, this Lensmith knows {SCHEMA}",
            [Problem("it was written by a newer Lensmith", mend="update this one")],
        )


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """A channel holds what its last act put there, else someone wrote around the log."""
    rows = connection.execute(
        "SELECT name, channel FROM (SELECT name, channel, max(seq) AS last FROM acts GROUP BY name, channel)"
        " LEFT JOIN channels USING (name, channel) WHERE act IS NOT last"
    ).fetchall()
    if rows:
        raise IntegrityError(
            f"{path} was changed around its log",
            [Problem("does not hold what its last act put there", f"{row[0]}@{row[1]}") for row in rows],
        )
