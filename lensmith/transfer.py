"""Artifacts to and from any store: files first, the manifest last, every digest checked on both ways.

At the address lies what lies in the artifact's directory. Without a manifest that can be read there is no
artifact there: a push that was killed is not taken for whole, and the same push finishes it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lensmith.address import Store, files_below, open_store, plain_name, reaching
from lensmith.artifact import MANIFEST, RECORD, Artifact, FileEntry, Manifest, verify
from lensmith.dataset import log_held_out_read
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.files import digest_file, is_disk_full, sync_file, write_json
from lensmith.home import Home
from lensmith.progress import Progress

_BLOCK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
# A record holds times and places.
_MAX_RECORD_BYTES = 1_000_000


@dataclass(frozen=True)
class Sent:
    """How many files a push wrote, and how many lay there already."""

    files: int
    already: int


def push(home: Home, artifact: Artifact, address: str) -> Sent:
    """Copy `artifact` to `address`, a folder of its own; what lies there already is not sent again.

    Raises InputError where the address holds anything else, or the artifact is a base (its weights lie
    elsewhere); IntegrityError where a file, here or there, is not what the manifest says.
    """
    if artifact.kind == "base":
        problem = Problem("a base names a checkpoint and holds none", artifact.short, "copy the checkpoint")
        raise InputError(f"{artifact.short} cannot be pushed", [problem])
    store = open_store(address)
    if artifact.kind == "held_out":
        log_held_out_read(home, artifact, f"pushed to {address}")
    with reaching(address):
        _refuse_others(store, artifact)
        sent = 0
        with Progress("files pushed", len(artifact.manifest.files)) as progress:
            for entry in artifact.manifest.files:
                sent += _send(store, artifact, entry)
                progress.add()
        for name in (RECORD, MANIFEST):
            if (artifact.path / name).is_file():
                store.fs.pipe_file(store.path(name), (artifact.path / name).read_bytes())
    return Sent(sent, len(artifact.manifest.files) - sent)


def _refuse_others(store: Store, artifact: Artifact) -> None:
    there = files_below(store, store.root) if store.fs.exists(store.root) else {}
    own = {entry.path for entry in artifact.manifest.files} | {MANIFEST, RECORD}
    others = sorted(there.keys() - own)
    manifest = _read_manifest(store) if MANIFEST in there else None
    if others or (manifest is not None and manifest.id != artifact.id):
        what = f"{manifest.kind}-{manifest.id[:12]}" if manifest is not None else f"{others[0]!r}"
        problem = Problem(f"{what} lies there", store.address, "give a folder of its own")
        raise InputError(f"{artifact.short} cannot be pushed there", [problem])


def _send(store: Store, artifact: Artifact, entry: FileEntry) -> bool:
    """Whether the file had to be sent."""
    target = store.path(entry.path)
    if store.fs.exists(target) and _digest_there(store, target) == entry.sha256:
        return False
    store.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
    store.fs.put_file(str(artifact.path / entry.path), target)
    if (found := _digest_there(store, target)) != entry.sha256:
        what = f"sha256 {found[:12]} lies there, the manifest says {entry.sha256[:12]}"
        problem = Problem(what, entry.path, f"lensmith verify {artifact.short}, then push again")
        raise IntegrityError(f"{artifact.short} did not come whole to {store.address}", [problem])
    return True


def _digest_there(store: Store, path: str) -> str:
    state = hashlib.sha256()
    for block in _blocks(store, path):
        state.update(block)
    return state.hexdigest()


def _blocks(store: Store, path: str) -> Iterator[bytes]:
    with store.fs.open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            assert isinstance(block, bytes)
            yield block


def pull(home: Home, address: str) -> Artifact:
    """Copy the artifact at `address` into the home, under the id it has.

    What was fetched before a kill is not fetched again. Raises InputError where no whole artifact lies there,
    or the home has another one for the same key; IntegrityError where a file is not what the manifest says.
    """
    store = open_store(address)
    try:
        with reaching(address):
            manifest = _read_manifest(store)
            if manifest is None:
                problem = Problem(
                    f"no {MANIFEST} there that can be read", address, "push it again, to its end"
                )
                raise InputError("no whole artifact lies there", [problem])
            _check(manifest, address)
            with home.locked(f"{manifest.kind}-{manifest.key}"):
                return _known(home, manifest) or _bring(home, store, manifest)
    except OSError as error:
        if is_disk_full(error):
            raise home.no_space(f"pulling {address}") from error
        raise


def _read_manifest(store: Store) -> Manifest | None:
    """None where there is none, or one that was cut short."""
    path = store.path(MANIFEST)
    if not store.fs.exists(path):
        return None
    try:
        return Manifest.model_validate_json(store.fs.cat_file(path))
    except ValidationError:
        return None


def _check(manifest: Manifest, address: str) -> None:
    """That the manifest is what its id says, and that nothing in it can lead out of the home."""
    if manifest.computed_id() != manifest.id or not _DIGEST.fullmatch(manifest.key):
        raise IntegrityError("the manifest was changed after it was written", [Problem(manifest.id, address)])
    for entry in manifest.files:
        if plain_name(entry.path) in (MANIFEST, RECORD):
            raise IntegrityError("the manifest names itself", [Problem(entry.path, address)])


def _known(home: Home, manifest: Manifest) -> Artifact | None:
    found = home.find(manifest.kind, manifest.key)
    if found is None:
        return None
    if found.id != manifest.id:
        problem = Problem(f"{manifest.id[:12]} is to be pulled", found.short, "pull it into another home")
        raise InputError("this home has another artifact that was made for the same key", [problem])
    verify(found)
    return found


def _bring(home: Home, store: Store, manifest: Manifest) -> Artifact:
    coming = home.work_path(f"pull-{manifest.id}")
    coming.mkdir(parents=True, exist_ok=True)
    problems: list[Problem] = []
    with Progress("files pulled", len(manifest.files)) as progress:
        for entry in manifest.files:
            problems += _fetch(store, entry, coming / entry.path)
            progress.add()
    if problems:
        raise IntegrityError(f"what lies at {store.address} is not what its manifest says", problems)
    if store.fs.exists(store.path(RECORD)):
        write_json(coming / RECORD, json.loads(store.fs.read_block(store.path(RECORD), 0, _MAX_RECORD_BYTES)))
    write_json(coming / MANIFEST, manifest.model_dump())
    return home.adopt(manifest, coming)


def _fetch(store: Store, entry: FileEntry, target: Path) -> list[Problem]:
    """What is wrong with the file there; none where it is here now, whole."""
    if target.is_file() and digest_file(target) == entry.sha256:
        return []
    target.parent.mkdir(parents=True, exist_ok=True)
    path = store.path(entry.path)
    if not store.fs.exists(path):
        return [Problem("is missing", entry.path)]
    state, size = hashlib.sha256(), 0
    with target.open("wb") as copy:
        for block in _blocks(store, path):
            size += len(block)
            state.update(block)
            copy.write(block)
            # One block more than is stated is enough to know better.
            if size > entry.bytes:
                break
    if (found := state.hexdigest()) != entry.sha256:
        target.unlink()
        return [Problem(f"sha256 {found[:12]}, the manifest says {entry.sha256[:12]}", entry.path)]
    sync_file(target)
    return []
