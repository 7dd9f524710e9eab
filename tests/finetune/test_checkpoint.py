"""A checkpoint counts only when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.checkpoint import MANIFEST, discard_others, folder_of, last_whole, read_whole, seal
from lensmith.files import digest_file


def checkpoint(work: Path, step: int) -> Path:
    folder = folder_of(work, step)
    (folder / "deeper").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(256)) * step)
    (folder / "deeper" / "state").write_text("state")
    return folder


def sealed(work: Path, step: int) -> Path:
    folder = checkpoint(work, step)
    seal(folder, step, 10, processes=2, zero_stage=3)
    return folder


def test_whole(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 4)
    manifest = read_whole(folder)
    assert manifest is not None
    assert (manifest.step, manifest.steps, manifest.processes, manifest.zero_stage) == (4, 10, 2, 3)
    assert [each.path for each in manifest.files] == ["deeper/state", "weights"]


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def cut(folder: Path) -> None:
    (folder / "weights").write_bytes(b"")


def flipped(folder: Path) -> None:
    data = bytearray((folder / "weights").read_bytes())
    data[7] ^= 1
    (folder / "weights").write_bytes(bytes(data))


def missing(folder: Path) -> None:
    (folder / "deeper" / "state").unlink()


def half_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:50])


def a_folder(folder: Path) -> None:
    (folder / "weights").unlink()
    (folder / "weights").mkdir()


@pytest.mark.parametrize("damage", [no_manifest, cut, flipped, missing, a_folder, half_manifest])
def test_damaged_does_not_count(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    earlier, later = sealed(tmp_path, 4), sealed(tmp_path, 6)
    damage(later)
    assert read_whole(later) is None
    found = last_whole(tmp_path)
    assert found is not None
    assert found[0] == earlier


@pytest.mark.parametrize("read", [1, 2])
def test_discarded_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int) -> None:
    """A training may discard its older ones while another process looks which one is the last."""
    earlier, later = sealed(tmp_path, 4), sealed(tmp_path, 6)
    seen: list[Path] = []

    def discards(path: Path) -> str:
        if later in path.parents:
            seen.append(path)
            if len(seen) == read:
                discard_others(tmp_path, {earlier})
        return digest_file(path)

    monkeypatch.setattr("finetune.checkpoint.digest_file", discards)
    found = last_whole(tmp_path)
    assert found is not None
    assert found[0] == earlier
    assert len(seen) == read


def test_last_is_by_step_not_by_name(tmp_path: Path) -> None:
    for step in (9, 10):
        sealed(tmp_path, step)
    found = last_whole(tmp_path)
    assert found is not None
    assert found[1].step == 10


def test_none(tmp_path: Path) -> None:
    assert last_whole(tmp_path) is None
    checkpoint(tmp_path, 3)
    assert last_whole(tmp_path) is None


def test_others_are_removed(tmp_path: Path) -> None:
    keep = sealed(tmp_path, 4)
    sealed(tmp_path, 2)
    checkpoint(tmp_path, 6)
    (tmp_path / "rows").mkdir()
    discard_others(tmp_path, [keep])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "rows"]
    discard_others(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
