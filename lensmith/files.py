"""Writing files so that a reader sees the whole of them or nothing, and digesting them."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import sqlite3
from pathlib import Path
from typing import Any

# Bytes of a read past the system's cache.
_READ = 4 << 20


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest_json(value: Any) -> str:
    """SHA-256 (hex) of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_from_disk(path: Path) -> str:
    """As `digest_file`, of a file that the system's cache does not hold, and need not: read past it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return digest_file(path)
    digest, at = hashlib.sha256(), 0
    try:
        # Reads past the cache ask for memory at the beginning of a page (open(2)).
        with mmap.mmap(-1, _READ) as pages, memoryview(pages) as buffer:
            while count := os.preadv(handle, [buffer], at):
                digest.update(buffer[:count])
                at += count
    finally:
        os.close(handle)
    return digest.hexdigest()


def is_disk_full(error: Exception) -> bool:
    """Whether a system call, or SQLite, failed for want of space."""
    if isinstance(error, sqlite3.OperationalError):
        # Not every error of the module has a code; this is what sqlite3_errstr says of SQLITE_FULL.
        return str(error) == "database or disk is full"
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def sync_file(path: Path) -> None:
    """Make what was written to `path` survive a power cut; for a directory, the names inside it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, fsync, rename: `path` is whole whenever it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_file(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write an indented, key-sorted JSON file atomically, ended by a newline."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")
