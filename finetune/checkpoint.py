"""Checkpoints that count only when they are whole: a manifest, written last, lists what belongs to them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.launcher import division
from finetune.scores import Scored
from lensmith.files import digest_file, sync_file, write_json

MANIFEST = "checkpoint.json"
_PREFIX = "checkpoint-"
# Larger files are known by their size alone: hashing an 8B model's optimizer state would take minutes a save.
_HASHED_BYTES = 256 << 20


class SavedFile(BaseModel):
    """A file of a checkpoint: POSIX path below it, size, and SHA-256 where it has at most 256 MiB."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    bytes: int
    sha256: str | None


class Manifest(BaseModel):
    """`checkpoint.json`. step of steps: how far training was; processes, zero_stage, fsdp: who can go on.

    scores: of all evaluations so far. over: they have ended the training before its last step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    step: int
    steps: int
    processes: int
    zero_stage: int
    fsdp: bool = False
    scores: list[Scored] = []
    over: bool = False
    files: list[SavedFile]

    @property
    def division(self) -> str:
        """How it was divided over the processes, in words."""
        return division(self.zero_stage, self.fsdp)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to learn."""
        return self.over or self.step >= self.steps


def seal(
    folder: Path,
    step: int,
    steps: int,
    processes: int,
    zero_stage: int,
    scores: Sequence[Scored] = (),
    over: bool = False,
    fsdp: bool = False,
) -> Manifest:
    """Write the manifest of the checkpoint in `folder`, after every file in it has reached the disk."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in paths:
        sync_file(path)
    files = [_describe(folder, path) for path in paths]
    manifest = Manifest(
        step=step,
        steps=steps,
        processes=processes,
        zero_stage=zero_stage,
        fsdp=fsdp,
        scores=list(scores),
        over=over,
        files=files,
    )
    for directory in {path.parent for path in paths}:
        sync_file(directory)
    write_json(folder / MANIFEST, manifest.model_dump())
    sync_file(folder.parent)
    return manifest


def add_scores(folder: Path, scores: Sequence[Scored], over: bool) -> None:
    """Note in the manifest of a sealed checkpoint what was evaluated after it was sealed."""
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    changed = manifest.model_copy(update={"scores": list(scores), "over": over})
    write_json(folder / MANIFEST, changed.model_dump())


def _describe(folder: Path, path: Path) -> SavedFile:
    size = path.stat().st_size
    digest = digest_file(path) if size <= _HASHED_BYTES else None
    return SavedFile(path=path.relative_to(folder).as_posix(), bytes=size, sha256=digest)


def read_whole(folder: Path) -> Manifest | None:
    """The manifest of the checkpoint in `folder` if it is whole, else None.

    None also for one that a training discards while it is read.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        whole = all(_is_as_saved(folder / entry.path, entry) for entry in manifest.files)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValidationError):
        return None
    return manifest if whole else None


def _is_as_saved(path: Path, entry: SavedFile) -> bool:
    size = path.stat().st_size
    return size == entry.bytes and (entry.sha256 is None or digest_file(path) == entry.sha256)


def all_whole(work: Path) -> list[tuple[Path, Manifest]]:
    """The whole checkpoints under `work` with their manifests, the one with the most steps last."""
    found = [
        (folder, manifest)
        for folder in work.glob(f"{_PREFIX}*/")
        if (manifest := read_whole(folder)) is not None
    ]
    return sorted(found, key=lambda each: each[1].step)


def sealed_steps(work: Path) -> list[int]:
    """The steps of the checkpoints under `work` that have a manifest, ascending. Their files are not read."""
    return sorted(int(path.parent.name.removeprefix(_PREFIX)) for path in work.glob(f"{_PREFIX}*/{MANIFEST}"))


def last_whole(work: Path) -> tuple[Path, Manifest] | None:
    """The whole checkpoint under `work` with the most steps, and its manifest."""
    found = all_whole(work)
    return found[-1] if found else None


def discard_others(work: Path, keep: Collection[Path]) -> None:
    """Remove every checkpoint under `work` but those of `keep`, half ones included."""
    for folder in work.glob(f"{_PREFIX}*/"):
        if folder not in keep:
            # Without its manifest first, what a kill leaves of it does not count.
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)


def folder_of(work: Path, step: int) -> Path:
    """Where transformers' Trainer saves the checkpoint after `step`."""
    return work / f"{_PREFIX}{step}"
