"""Data that lies in a store: copied to `<home>/cache/remote/` before it is read, and only what has changed.

A file is whole whenever it has its name. What the store says of it (size, time, its own checksum) is noted
once it is there, so that a killed download is done again and an unchanged file is not. Safe to delete.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from lensmith.address import Store, files_below, open_store, plain_name, reaching
from lensmith.errors import InputError, Problem
from lensmith.files import digest_json, is_disk_full
from lensmith.home import Home
from lensmith.progress import Progress
from lensmith.recipe import Recipe

# Files that hold their pictures: they need nothing that lies beside them.
_WHOLE = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz", ".zip")
_BLOCK = 1 << 20
# A store across a network answers in tens of milliseconds, whatever the size.
_AT_ONCE = 16
_NOTED_AFTER = 256


def with_sources_here(recipe: Recipe, home: Home) -> Recipe:
    """The recipe with every source on this machine: paths as they are, addresses as their local copies.

    Raises InputError where an address cannot be read, or there is nothing.
    """
    data = recipe.data
    if not any(isinstance(each.path, str) for each in data.all_sources()):
        return recipe
    here: dict[str, Any] = {
        "source": None if data.source is None else _here(data.source, home),
        "sources": [each.model_copy(update={"path": _here(each.path, home)}) for each in data.sources],
    }
    return recipe.model_copy(update={"data": data.model_copy(update=here)})


def _here(place: Path | str, home: Home) -> Path:
    return place if isinstance(place, Path) else fetch(place, home)


def fetch(address: str, home: Home) -> Path:
    """The local copy of what lies at `address`, a file or folder, brought up to date.

    With a file of labels comes its whole folder, for the pictures in it. Raises InputError.
    """
    store = open_store(address)
    cache = home.root / "cache/remote" / digest_json(address)[:24]
    try:
        with home.locked(f"remote-{cache.name}"), reaching(address):
            return _bring(store, cache)
    except OSError as error:
        if is_disk_full(error):
            raise home.no_space(f"fetching {address}") from error
        raise


def _bring(store: Store, cache: Path) -> Path:
    if not store.fs.exists(store.root):
        raise InputError(f"{store.address} is not there", [Problem("no such file or folder in the store")])
    if store.fs.isdir(store.root):
        # The name is how people know the source.
        here = cache / "files" / plain_name(store.root.rpartition("/")[2] or "data")
        _copy(store, store.root, files_below(store, store.root), cache, here)
        return here
    folder, _, name = store.root.rpartition("/")
    here = cache / "files" / (folder.rpartition("/")[2] or "data")
    whole = name.lower().endswith(_WHOLE)
    wanted = {name: store.fs.info(store.root)} if whole else files_below(store, folder)
    _copy(store, folder, wanted, cache, here)
    return here / plain_name(name)


def _copy(store: Store, folder: str, wanted: dict[str, dict[str, Any]], cache: Path, here: Path) -> None:
    # Times are no JSON, and differ in kind from store to store.
    marks = {name: digest_json({key: str(each) for key, each in wanted[name].items()}) for name in wanted}
    here.mkdir(parents=True, exist_ok=True)
    with closing(_open_notes(cache)) as notes:
        known = {name: tuple(noted) for name, *noted in notes.execute("SELECT * FROM notes")}
        missing = [name for name in wanted if known.get(name) != (marks[name], *_stamp(here / name))]
        for name in missing:
            _make_room(here, name)
        _remove_others(here, marks)
        waiting = iter(missing)
        # An archive is read at one place at a time.
        workers = 1 if "::" in store.address else _AT_ONCE
        with (
            ThreadPoolExecutor(workers) as threads,
            Progress("files fetched", len(wanted), len(wanted) - len(missing)) as progress,
        ):
            while names := list(islice(waiting, _NOTED_AFTER)):
                coming = [
                    threads.submit(
                        _download, store, f"{folder}/{name}" if folder else name, wanted[name], here / name
                    )
                    for name in names
                ]
                for each in coming:
                    each.result()
                notes.executemany(
                    "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)",
                    [(name, marks[name], *_stamp(here / name)) for name in names],
                )
                notes.commit()
                progress.add(len(names))


def _open_notes(cache: Path) -> sqlite3.Connection:
    notes = sqlite3.connect(cache / "notes.sqlite")
    notes.execute(
        "CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, mark TEXT NOT NULL, size INTEGER NOT NULL,"
        " changed INTEGER NOT NULL) WITHOUT ROWID"
    )
    return notes


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a copy: who alters it gets it anew."""
    try:
        facts = path.lstat()
    except OSError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns


def _make_room(here: Path, name: str) -> None:
    """What was a file and is a folder now, or the other way about, goes."""
    path = here / name
    if path.is_dir():
        shutil.rmtree(path)
    for above in path.relative_to(here).parents:
        if (here / above).is_file():
            (here / above).unlink()
    path.parent.mkdir(parents=True, exist_ok=True)


def _remove_others(here: Path, wanted: Container[str]) -> None:
    """What the store no longer has must not be read; nor what a killed download left."""
    for path in here.rglob("*"):
        if not path.is_dir() and path.relative_to(here).as_posix() not in wanted:
            path.unlink()


def _download(store: Store, path: str, facts: dict[str, Any], target: Path) -> None:
    """The file, under its name once it is whole. Raises InputError where the store gives another size."""
    size: int | None = facts["size"]
    coming = target.with_name(f".{digest_json(target.name)[:24]}.coming")
    came = 0
    with store.fs.open(path, "rb") as stream, coming.open("wb") as copy:
        while block := stream.read(_BLOCK):
            assert isinstance(block, bytes)
            came += len(block)
            # A member of an archive may unpack to more than it says.
            if size is not None and came > size:
                break
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    if size is not None and came != size:
        coming.unlink()
        problem = Problem(f"{came:,} bytes came, the store says {size:,}", path, "try again")
        raise InputError("a file did not come whole", [problem])
    coming.replace(target)
