"""Which artifact of a home holds a picture, or a whole file of them, as a split keeps it. Safe to delete."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from data_prep.cache_file import CacheFile
from data_prep.picture_cache import sight_version
from data_prep.seen import Seen
from data_prep.shards import shard_key
from data_prep.split import SplitName
from data_prep.written import Written, picture_digests
from lensmith.artifact import Artifact
from lensmith.dataset import HELD_OUT_FILE, Split, read_held_out, read_split, split_file
from lensmith.errors import IntegrityError
from lensmith.files import digest_file, digest_json
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.provenance import code_digest, package_versions
from lensmith.row_file import RowFile, digests_in, images_file, images_files
from lensmith.stored_image import StoredView

_TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    key BLOB PRIMARY KEY, artifact TEXT NOT NULL, split TEXT NOT NULL, place INTEGER NOT NULL,
    png BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    key BLOB PRIMARY KEY, artifact TEXT NOT NULL, split TEXT NOT NULL, number INTEGER NOT NULL,
    sha256 TEXT NOT NULL, pngs BLOB NOT NULL);
"""
_TRAINED: tuple[Split, ...] = ("train", "validation")
_RECORDS_AT_ONCE = 1000
# Each is an open file, of 1,024 by default; the split that is written has some too (see `shards.MOST_FILES`).
MOST_OPEN_FILES = 600
_WHY = "pictures of it that have not changed are prepared again"


@dataclass(frozen=True)
class _Found:
    """Where a picture lies, and 16 bytes of SHA-256 of its PNG as it was proven."""

    rows: RowFile
    place: int
    digest: bytes


@dataclass(frozen=True)
class _Linked:
    """A file of pictures that two artifacts share: its key, its SHA-256 (hex) when it was sealed, and those
    of its pictures, which were read from it then."""

    key: bytes
    sha256: str
    pngs: bytes


class StoredBefore(CacheFile):
    """`<home>/cache/stored.sqlite`: where datasets and exams have each picture, by the digest of its pixels,
    and each file of pictures, by those of all in it.

    That pictures of an exam are copied is logged with the reads of that exam; its rows are not read.
    """

    def __init__(self, home: Home, limits: ImageLimits) -> None:
        self._home = home
        super().__init__(home.root / "cache/stored.sqlite", _TABLES)
        # Other code or libraries may write the same pixels as other bytes: the dataset's id would be another.
        self._version = sight_version(limits)
        self._opened: dict[tuple[str, SplitName], RowFile | None] = {}
        self._open_files = 0
        self._spoiled: set[bytes] = set()
        # A file is laid out by other code than its pictures, too.
        written_by = [code_digest("lensmith.row_file"), package_versions(("pyarrow",))]
        self._layout = bytes.fromhex(digest_json(written_by))[:16]
        self._linked: dict[Path, _Linked] = {}
        self._spoiled_files: set[bytes] = set()

    def find(self, seen: Seen) -> StoredView | None:
        """The picture as `sight.store` gave it to a dataset that is there; None where none has it.

        Nobody has looked whether its bytes are still those: who writes them asks `read_back` of what was
        written. Until then and until `remember` the answer is the same, whatever another process remembers
        meanwhile: who asks twice relies on it.
        """
        found = self._find(seen.identity)
        if found is None:
            return None
        png = found.rows.image(found.place).png
        return StoredView(seen.identity.hex(), seen.width, seen.height, png, seen.fingerprint)

    def link(self, shard: bytes, path: Path) -> bool:
        """Have a file of a shard's pictures (`shard` is its key) lie at `path`; False where there is none, or
        it cannot be shared.

        It is the same file, under one more name: whoever writes into one writes into both, and either then
        fails its proof. Nobody has looked whether its bytes are still those: `read_back` does.
        """
        self._linked.pop(path, None)
        found = self._db.execute(
            "SELECT artifact, split, number, sha256, pngs FROM files WHERE key = ?",
            (self._version + self._layout + shard,),
        ).fetchone()
        rows = found and shard not in self._spoiled_files and self._rows(found[0], found[1])
        if not rows:
            return False
        try:
            os.link(images_file(rows.path, found[2]), path)
        except OSError:
            # Not every disk can, nor any file for ever: then its pictures are copied.
            return False
        self._linked[path] = _Linked(shard, found[3], found[4])
        return True

    def read_back(self, path: Path) -> Written | None:
        """The split that was written to `path`, each byte of its pictures read once; None where anything that
        was taken over is not what it once was: `find` and `link` give it no more."""
        digests, whole = bytearray(), dict[Path, str]()
        spoiled = len(self._spoiled_files)
        for file in images_files(path):
            linked = self._linked.get(file)
            if linked is None:
                digests += picture_digests(file)
                continue
            whole[file] = digest_file(file)
            digests += linked.pngs
            if whole[file] != linked.sha256:
                self._spoiled_files.add(linked.key)
        if len(self._spoiled_files) > spoiled:
            return None
        written = Written.of(path, bytes(digests), whole)
        return None if self._drop_spoiled(written) else written

    def _drop_spoiled(self, written: Written) -> bool:
        before = len(self._spoiled)
        names = chain.from_iterable(map(digests_in, images_files(written.path)))
        for identity, digest in zip(names, written.digests, strict=True):
            found = self._find(identity)
            if found is not None and found.digest != _short(digest):
                self._spoiled.add(identity)
        return len(self._spoiled) > before

    def _find(self, identity: bytes) -> _Found | None:
        if identity in self._spoiled:
            return None
        if not self._db.in_transaction:
            # Reads until its end see one state of the file.
            self._db.execute("BEGIN")
        found = self._db.execute(
            "SELECT artifact, split, place, png FROM pictures WHERE key = ?", (self._version + identity,)
        ).fetchone()
        rows = found and self._rows(found[0], found[1])
        return _Found(rows, found[2], found[3]) if rows else None

    def _rows(self, key: str, split: SplitName) -> RowFile | None:
        """What was removed once it is open stays mapped."""
        if (key, split) not in self._opened:
            try:
                self._opened[key, split] = self._open(key, split)
            except (OSError, IntegrityError):
                # To say so is the matter of who uses that artifact: here it is only no help.
                self._opened[key, split] = None
        return self._opened[key, split]

    def _open(self, key: str, split: SplitName) -> RowFile | None:
        found = self._home.find("held_out" if split == "held_out" else "dataset", key)
        if found is None:
            return None
        files = 1 + len(images_files(found.path / _file(split)))
        if self._open_files + files > MOST_OPEN_FILES:
            # Pictures that only many older datasets have are encoded anew.
            return None
        self._open_files += files
        return read_held_out(self._home, found, _WHY) if split == "held_out" else read_split(found, split)

    def remember(self, dataset: Artifact, held_out: Artifact, written: Mapping[SplitName, Written]) -> None:
        """Keep where they have their images, which were all proven as they were `written`."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        # What both hold, which is nothing unless the files changed since, is better copied from the dataset.
        records = chain.from_iterable(
            self._records(held_out if each == "held_out" else dataset, each, written[each])
            for each in ("held_out", *_TRAINED)
        )
        # Read before the file is locked: another process waits a minute at most.
        while batch := list(islice(records, _RECORDS_AT_ONCE)):
            self._keep("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", batch)

    def remember_files(self, artifact: Artifact, written: Mapping[SplitName, Written]) -> None:
        """Keep which files of images it has, which were sealed as they were `written`."""
        splits = ("held_out",) if artifact.kind == "held_out" else _TRAINED
        files = [each for split in splits for each in self._files(artifact, split, written[split])]
        self._keep("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", files)

    def _keep(self, query: str, records: Sequence[tuple[object, ...]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(query, records)
        self._db.execute("COMMIT")

    def _records(
        self, artifact: Artifact, split: SplitName, written: Written
    ) -> Iterator[tuple[bytes, str, str, int, bytes]]:
        names = chain.from_iterable(map(digests_in, images_files(artifact.path / _file(split))))
        # An artifact that was there before is the same; were it not, no copy from it would have its digest.
        for at, (identity, digest) in enumerate(zip(names, written.digests, strict=False)):
            yield self._version + identity, artifact.manifest.key, split, at, _short(digest)

    def _files(
        self, artifact: Artifact, split: SplitName, written: Written
    ) -> Iterator[tuple[bytes, str, str, int, str, bytes]]:
        stated = {entry.path: entry.sha256 for entry in artifact.manifest.files}
        path, at = artifact.path / _file(split), 0
        for number, file in enumerate(images_files(path)):
            identities = list(digests_in(file))
            pngs = written.digests[at : at + len(identities)].tobytes()
            at += len(identities)
            key = self._version + self._layout + shard_key(identities)
            sha256 = stated[file.relative_to(artifact.path).as_posix()]
            yield key, artifact.manifest.key, split, number, sha256, pngs


def _file(split: SplitName) -> str:
    return HELD_OUT_FILE if split == "held_out" else split_file(split)


def _short(digest: np.void) -> bytes:
    return digest.tobytes()[:16]
