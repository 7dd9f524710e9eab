"""The artifact: a directory whose manifest is written last, with a key and an id.

key: the digest of what was asked (see `provenance.stage_key`); decides whether a stage is done.
id: the digest of what came out; decides integrity. Moving or renaming the directory changes neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.files import digest_file, digest_json

Kind = Literal[
    "base",
    "dataset",
    "held_out",
    "intake",
    "run",
    "adapter",
    "model",
    "trace",
    "report",
    "profile",
    "release",
    "loadtest",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MANIFEST = "manifest.json"
RECORD = "record.json"
SCHEMA: Literal[1] = 1


class FileEntry(BaseModel):
    """One file of an artifact; `path` is relative, POSIX."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    sha256: str
    bytes: int


class Manifest(BaseModel):
    """`manifest.json`. `inputs` maps a role ("base", "dataset") to the id of an input artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = SCHEMA
    kind: Kind
    id: str
    key: str
    inputs: dict[str, str]
    files: list[FileEntry]
    body: dict[str, Any]

    def computed_id(self) -> str:
        """The id that the manifest's own content gives."""
        return content_id(self.kind, self.inputs, self.files, self.body)


def content_id(kind: Kind, inputs: dict[str, str], files: list[FileEntry], body: dict[str, Any]) -> str:
    """SHA-256 over kind, schema, inputs' ids, every file's path, digest and size, and the body."""
    return digest_json(
        {
            "schema": SCHEMA,
            "kind": kind,
            "inputs": inputs,
            "files": [entry.model_dump() for entry in sorted(files, key=lambda entry: entry.path)],
            "body": body,
        }
    )


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def kind(self) -> Kind:
        return self.manifest.kind

    @property
    def body(self) -> dict[str, Any]:
        return self.manifest.body

    @property
    def short(self) -> str:
        """Kind and the first 12 hex digits of the id: how people refer to an artifact."""
        return f"{self.kind}-{self.id[:12]}"

    def record(self) -> dict[str, Any]:
        """What differed in this run for no reason that matters: times, hosts, places."""
        path = self.path / RECORD
        return json.loads(path.read_bytes()) if path.is_file() else {}


def open_artifact(path: Path, kind: Kind | None = None) -> Artifact:
    """Read and check the manifest of the artifact at `path`, without hashing its files.

    Raises InputError when there is no complete artifact of that kind there, IntegrityError when the
    manifest does not give the id that it states.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise InputError(
            f"{path} holds no complete artifact",
            [Problem(f"no {MANIFEST} there", mend="run the stage that makes it again")],
        )
    try:
        manifest = Manifest.model_validate_json(manifest_path.read_bytes())
    except ValidationError as error:
        raise IntegrityError(f"{manifest_path} is not a manifest of schema {SCHEMA}: {error}") from error
    if manifest.computed_id() != manifest.id:
        raise IntegrityError(
            f"{manifest_path} was changed after it was written",
            [Problem(f"states id {manifest.id[:12]}, its content gives {manifest.computed_id()[:12]}")],
        )
    if kind is not None and manifest.kind != kind:
        raise InputError(f"{path} is a {manifest.kind}, a {kind} was expected")
    return Artifact(path, manifest)


def walk_files(root: Path) -> Iterator[Path]:
    """Every file an artifact's id covers: all but the manifest and the record.

    Raises IntegrityError for a link, a pipe, or anything else that is neither a file nor a directory.
    """
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            raise IntegrityError(f"{path} is a symbolic link: an artifact holds plain files only")
        if not path.is_file() and not path.is_dir():
            raise IntegrityError(f"{path} is no plain file: an artifact holds plain files only")
        if path.is_file() and path.relative_to(root).as_posix() not in (MANIFEST, RECORD):
            yield path


def list_files(root: Path, known: Mapping[Path, str] | None = None) -> list[FileEntry]:
    """Hash every file under `root` that the id covers, but those whose SHA-256 (hex) is `known`."""
    digests = known or {}
    return [
        FileEntry(
            path=path.relative_to(root).as_posix(),
            sha256=digests.get(path) or digest_file(path),
            bytes=path.stat().st_size,
        )
        for path in walk_files(root)
    ]


def verify(artifact: Artifact) -> None:
    """Re-hash every file of `artifact`. Raises IntegrityError with every file that differs."""
    stated = {entry.path: entry for entry in artifact.manifest.files}
    found = {entry.path: entry for entry in list_files(artifact.path)}
    problems = [Problem("is missing", where=path) for path in sorted(stated.keys() - found.keys())]
    problems += [
        Problem("is not in the manifest", where=path) for path in sorted(found.keys() - stated.keys())
    ]
    problems += [
        Problem(f"sha256 {found[path].sha256[:12]}, the manifest says {stated[path].sha256[:12]}", where=path)
        for path in sorted(stated.keys() & found.keys())
        if stated[path] != found[path]
    ]
    if problems:
        raise IntegrityError(f"{artifact.path} is not what its manifest says", problems)
