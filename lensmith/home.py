"""The home: where artifacts, attestations and unfinished work live. One writer a key at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensmith.artifact import (
    KINDS,
    MANIFEST,
    RECORD,
    Artifact,
    Kind,
    Manifest,
    content_id,
    list_files,
    open_artifact,
    verify,
    walk_files,
)
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.files import is_disk_full, sync_file, write_json


@dataclass
class Draft:
    """An artifact being made: write files under `path`, facts into `body`, run facts into `record`.

    digests: SHA-256 (hex) of files that were read whole since they came to lie there; they are sealed by it.
    found: whether another process had made the artifact meanwhile, or it was there; then that one is kept.
    """

    path: Path
    body: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    finished: Artifact | None = None
    found: bool = False

    @property
    def artifact(self) -> Artifact:
        """The finished artifact; only after the `with home.create(...)` block has ended well."""
        if self.finished is None:
            raise IntegrityError(f"{self.path} was read before it was complete")
        return self.finished


class Home:
    """A directory of artifacts: `artifacts/<kind>/<key>/`, `work/<key>/`, `attestations/<id>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def artifact_path(self, kind: Kind, key: str) -> Path:
        """Where the artifact of `key` is or will be."""
        return self.root / "artifacts" / kind / key[:24]

    def work_path(self, key: str) -> Path:
        """A directory for resumable work (checkpoints) towards `key`; removed once the artifact is whole."""
        return self.root / "work" / key[:24]

    def find(self, kind: Kind, key: str) -> Artifact | None:
        """The complete artifact made for `key`, or None."""
        path = self.artifact_path(kind, key)
        if not (path / MANIFEST).is_file():
            return None
        artifact = open_artifact(path, kind)
        return artifact if artifact.manifest.key == key else None

    def all(self, kind: Kind | None = None) -> list[Artifact]:
        """Every complete artifact, oldest first."""
        kinds = (kind,) if kind else KINDS
        paths = [
            path
            for each in kinds
            for path in (self.root / "artifacts" / each).glob("*/")
            if (path / MANIFEST).is_file() and not path.name.endswith(".partial")
        ]
        return [
            open_artifact(path) for path in sorted(paths, key=lambda p: (p / MANIFEST).stat().st_mtime_ns)
        ]

    def by_id(self, artifact_id: str) -> Artifact:
        """The artifact with exactly this id; of several, the newest: a base that was moved and pinned anew.

        Raises InputError where the home has none.
        """
        for artifact in reversed(self.all()):
            if artifact.id == artifact_id:
                return artifact
        raise InputError(f"no artifact with id {artifact_id[:12]} in {self.root}")

    def resolve(self, reference: str) -> Artifact:
        """An artifact by directory, by `kind-id` or by the first digits (6 or more) of id.

        Raises InputError where nothing, or more than one thing, matches.
        """
        if (Path(reference) / MANIFEST).is_file():
            return open_artifact(Path(reference))
        prefix = reference.rsplit("-", 1)[-1]
        matches = {
            artifact.id: artifact
            for artifact in self.all()
            if len(prefix) >= 6
            and artifact.id.startswith(prefix)
            and reference in (prefix, f"{artifact.kind}-{prefix}")
        }
        if len(matches) != 1:
            raise InputError(
                f"{reference!r} names {len(matches) or 'no'} artifact{'s' if len(matches) != 1 else ''}"
                f" in {self.root}",
                [Problem(match.short) for match in matches.values()]
                or [Problem("give a directory, kind-id, or 6 or more digits of an id", mend="lensmith list")],
            )
        return next(iter(matches.values()))

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the advisory lock `name`; waits for another process that holds it."""
        path = self.root / "locks" / f"{name[:40]}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def create(self, kind: Kind, key: str, inputs: Mapping[str, Artifact]) -> Iterator[Draft]:
        """Make the artifact for `key`: files go into a `.partial` directory, renamed when whole.

        Leaves nothing behind when the block raises; what a kill leaves is wiped by the next call.
        If another process finished the same key meanwhile, its artifact is kept.
        Raises InputError when the disk is full.
        """
        final = self.artifact_path(kind, key)
        partial = final.with_name(f"{final.name}.partial")
        try:
            with self.locked(f"{kind}-{key}"):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                draft = Draft(partial)
                try:
                    yield draft
                    draft.finished = self._seal(draft, kind, key, inputs, final)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            if is_disk_full(error):
                raise self.no_space(f"writing the {kind}") from error
            raise
        shutil.rmtree(self.work_path(key), ignore_errors=True)

    def adopt(self, manifest: Manifest, folder: Path) -> Artifact:
        """Take in a whole artifact that came from elsewhere: `folder`, on this disk, becomes its place.

        The caller holds the lock of its kind and key, and has checked every file.
        """
        final = self.artifact_path(manifest.kind, manifest.key)
        for path in sorted(each for each in folder.rglob("*") if each.is_dir()):
            sync_file(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        sync_file(final.parent)
        artifact = open_artifact(final, manifest.kind)
        verify(artifact)
        return artifact

    def no_space(self, doing: str) -> InputError:
        """What to raise when the disk is full while `doing` something."""
        return InputError(f"no space left under {self.root}", [Problem(f"while {doing}", mend="free disk")])

    def _seal(
        self, draft: Draft, kind: Kind, key: str, inputs: Mapping[str, Artifact], final: Path
    ) -> Artifact:
        input_ids = {role: artifact.id for role, artifact in sorted(inputs.items())}
        existing = self.find(kind, key)
        if existing is not None:
            draft.found = True
            return existing
        # A manifest must never outlive its files in a power cut.
        for path in walk_files(draft.path):
            sync_file(path)
        files = list_files(draft.path, draft.digests)
        manifest = Manifest(
            kind=kind,
            id=content_id(kind, input_ids, files, draft.body),
            key=key,
            inputs=input_ids,
            files=files,
            body=draft.body,
        )
        if draft.record:
            (draft.path / RECORD).write_text(json.dumps(draft.record, indent=2, sort_keys=True) + "\n")
        write_json(draft.path / MANIFEST, manifest.model_dump())
        shutil.rmtree(final, ignore_errors=True)
        draft.path.rename(final)
        sync_file(final.parent)
        return open_artifact(final, kind)

    def lineage(self, artifact: Artifact) -> list[Artifact]:
        """`artifact` and everything it was made from, itself first, each once.

        Raises IntegrityError when an input is no longer in the home.
        """
        by_id = {each.id: each for each in self.all()}
        order: list[Artifact] = []
        waiting = [artifact]
        seen: set[str] = set()
        while waiting:
            current = waiting.pop(0)
            if current.id in seen:
                continue
            seen.add(current.id)
            order.append(current)
            for role, input_id in current.manifest.inputs.items():
                if input_id not in by_id:
                    raise IntegrityError(
                        f"{current.short} was made from a {role} that is gone",
                        [Problem(f"no artifact with id {input_id[:12]} in {self.root}")],
                    )
                waiting.append(by_id[input_id])
        return order

    def verify(self, artifact: Artifact) -> list[Artifact]:
        """Re-hash `artifact` and its whole lineage; the artifacts checked, or IntegrityError with all."""
        chain = self.lineage(artifact)
        problems: list[Problem] = []
        for each in chain:
            try:
                verify(each)
            except IntegrityError as error:
                found = error.problems or (Problem(error.summary),)
                problems += [Problem(p.what, f"{each.short} {p.where}".strip(), p.mend) for p in found]
        if problems:
            raise IntegrityError(f"{artifact.short} does not verify", problems)
        return chain
