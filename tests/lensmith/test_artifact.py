"""The artifact: a manifest that gives its own id, and files that give the manifest."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lensmith.artifact import MANIFEST, RECORD, Artifact, open_artifact, verify
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home

KEY = "a" * 64


@pytest.fixture
def artifact(home: Home) -> Artifact:
    with home.create("run", KEY, {}) as draft:
        (draft.path / "weights.bin").write_bytes(b"weights")
        (draft.path / "logs").mkdir()
        (draft.path / "logs" / "metrics.jsonl").write_text("{}\n")
        draft.body.update(method="lora", seed=17)
        draft.record.update(host="here")
    return draft.artifact


def edit(artifact: Artifact, **changes: Any) -> None:
    path = artifact.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_an_untouched_artifact_verifies(artifact: Artifact) -> None:
    verify(artifact)
    assert [entry.path for entry in artifact.manifest.files] == ["logs/metrics.jsonl", "weights.bin"]
    assert artifact.short == f"run-{artifact.id[:12]}"
    assert artifact.record() == {"host": "here"}


def test_moving_it_changes_nothing(artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(artifact.path, tmp_path / "elsewhere")
    moved = open_artifact(tmp_path / "elsewhere", "run")
    verify(moved)
    assert moved.id == artifact.id


def test_the_record_is_outside_the_id(artifact: Artifact) -> None:
    (artifact.path / RECORD).write_text('{"host": "there"}')
    verify(open_artifact(artifact.path))


@pytest.mark.parametrize(
    "changes",
    [
        {"body": {"method": "lora", "seed": 18}},
        {"inputs": {"base": "0" * 64}},
        {"kind": "model"},
        {"files": []},
        {"id": "0" * 64},
        {"schema_version": 2},
        {"more": 1},
    ],
)
def test_an_edited_manifest_does_not_open(artifact: Artifact, changes: dict[str, Any]) -> None:
    edit(artifact, **changes)
    with pytest.raises(IntegrityError):
        open_artifact(artifact.path)


def test_a_manifest_that_is_no_json_does_not_open(artifact: Artifact) -> None:
    (artifact.path / MANIFEST).write_text("{")
    with pytest.raises(IntegrityError, match="is not a manifest"):
        open_artifact(artifact.path)


def test_every_file_that_differs_is_named(artifact: Artifact) -> None:
    (artifact.path / "weights.bin").write_bytes(b"weightS")
    (artifact.path / "logs" / "metrics.jsonl").unlink()
    (artifact.path / "extra.txt").write_text("")
    with pytest.raises(IntegrityError) as caught:
        verify(artifact)
    missing, extra, changed = caught.value.problems
    assert (missing.where, missing.what) == ("logs/metrics.jsonl", "is missing")
    assert (extra.where, extra.what) == ("extra.txt", "is not in the manifest")
    assert changed.where == "weights.bin"
    assert "the manifest says" in changed.what


def test_links_and_pipes_are_refused(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"weights")
    (artifact.path / "weights.bin").unlink()
    (artifact.path / "weights.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError, match="symbolic link"):
        verify(artifact)
    (artifact.path / "weights.bin").unlink()
    os.mkfifo(artifact.path / "weights.bin")
    with pytest.raises(IntegrityError, match="no plain file"):
        verify(artifact)


def test_no_manifest_or_another_kind_is_the_users_error(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a model was expected"):
        open_artifact(artifact.path, "model")
    (artifact.path / MANIFEST).unlink()
    with pytest.raises(InputError, match="no complete artifact"):
        open_artifact(artifact.path)


def test_a_manifest_of_schema_1_keeps_opening(tmp_path: Path) -> None:
    """Golden: this text was written by the first version; later versions must open it."""
    (tmp_path / MANIFEST).write_text(
        '{"body": {"rows": 2}, "files": [{"bytes": 3, "path": "data/a.txt", "sha256":'
        ' "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}], "id":'
        ' "640ce2eabf3d3db39b53a8f59b089a3ab7fc5a9870105d00f22ea8f2b72344b4", "inputs": {}, "key":'
        ' "0000", "kind": "dataset", "schema_version": 1}'
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("abc")
    verify(open_artifact(tmp_path, "dataset"))
