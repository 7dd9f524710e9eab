"""Data in a store: the same dataset as from a folder, fetched once, and whole or not at all."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from data_prep import remote
from data_prep.prepare import Prepared, prepare
from data_prep.remote import fetch
from lensmith.errors import InputError
from lensmith.home import Home
from tests.data_prep.folder import Folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are downloaded."""
    names: list[str] = []

    def download(store: object, path: str, facts: object, target: Path) -> None:
        names.append(path.rpartition("/")[2])
        return before(store, path, facts, target)  # pyright: ignore[reportArgumentType]

    before = remote._download
    monkeypatch.setattr(remote, "_download", download)
    return names


def prepared(folder: Folder, source: str, root: Path) -> Prepared:
    return prepare(folder.recipe(f"data.source={source}"), Home(root))


@pytest.mark.parametrize("labels", ["", "/labels.jsonl"], ids=["folder", "labels"])
def test_a_store_gives_the_same_dataset_as_the_folder(
    folder: Folder, tmp_path: Path, memory: MemoryFileSystem, labels: str
) -> None:
    folder.fill()
    folder.add(b"broken")
    here = prepared(folder, f"{folder.root}{labels}", tmp_path / "one")
    memory.put(str(folder.root), "/bucket/handed-over", recursive=True)
    from_store = prepared(folder, f"memory://bucket/handed-over{labels}", tmp_path / "two")
    assert from_store.dataset.id == here.dataset.id
    assert from_store.held_out.id == here.held_out.id
    assert from_store.intake.record()["places"] == [f"memory://bucket/handed-over{labels}"]


def test_only_what_has_changed_is_fetched_again(tmp_path: Path, opened: list[str]) -> None:
    home, store = Home(tmp_path / "home"), tmp_path / "store/forms"
    for name in ("labels.jsonl", "images/a.png", "images/b.png", "images/sub"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(name)
    (tmp_path / "secret").write_text("secret")
    (store / "link.png").symlink_to(tmp_path / "secret")
    here = fetch(f"file://{store}", home)
    assert here.name == "forms"
    assert sorted(opened) == ["a.png", "b.png", "labels.jsonl", "sub"]
    assert not (here / "link.png").exists()

    opened.clear()
    assert fetch(f"file://{store}", home) == here
    assert opened == []

    (store / "images/a.png").write_text("another")
    (store / "images/b.png").unlink()
    (store / "images/sub").unlink()
    (store / "images/sub").mkdir()
    (store / "images/sub/c.png").write_text("c")
    (here / "labels.jsonl").write_text("altered")
    fetch(f"file://{store}", home)
    assert sorted(opened) == ["a.png", "c.png", "labels.jsonl"]
    assert {path.relative_to(here).as_posix(): path.read_text() for path in here.rglob("*.*")} == {
        "labels.jsonl": "labels.jsonl",
        "images/a.png": "another",
        "images/sub/c.png": "c",
    }


def test_a_container_comes_alone(tmp_path: Path, memory: MemoryFileSystem, opened: list[str]) -> None:
    memory.pipe({"/b/rows.parquet": b"rows", "/b/other": b"other"})
    assert fetch("memory://b/rows.parquet", Home(tmp_path)).read_bytes() == b"rows"
    assert opened == ["rows.parquet"]


def test_members_of_an_archive_are_read_and_none_leads_out(folder: Folder, tmp_path: Path) -> None:
    folder.fill(3)
    folder.write()
    archive = Path(shutil.make_archive(str(tmp_path / "forms"), "zip", folder.root.parent, folder.root.name))
    here = fetch(f"zip://handed-over::file://{archive}", Home(tmp_path / "home"))
    assert (here / "labels.jsonl").read_bytes() == folder.labels.read_bytes()
    assert len(list((here / "images").iterdir())) == 3
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("handed-over/../../evil", "evil")
    with pytest.raises(InputError, match="out of its folder"):
        fetch(f"zip://handed-over::file://{archive}", Home(tmp_path / "home"))
    assert not list(tmp_path.rglob("evil"))


def test_a_killed_download_is_not_taken_for_whole(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe({"/b/one": b"1" * 100, "/b/two": b"2" * 100})
    home = Home(tmp_path)

    def die(file: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        with pytest.raises(KeyboardInterrupt):
            fetch("memory://b", home)
    assert not [path for path in home.root.rglob("*") if path.name in ("one", "two")]
    here = fetch("memory://b", home)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == {"one": b"1" * 100, "two": b"2" * 100}


@pytest.mark.parametrize("size", [50, 200])
def test_a_file_of_another_size_than_stated_is_refused(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    memory.pipe("/b/one", b"1" * 100)
    said = memory.find("/b", detail=True)
    said["/b/one"]["size"] = size
    monkeypatch.setattr(MemoryFileSystem, "find", lambda self, path, detail: said)
    with pytest.raises(InputError, match="did not come whole"):
        fetch("memory://b", Home(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.name == "one"]


def test_what_is_not_there_is_told(tmp_path: Path, memory: MemoryFileSystem) -> None:
    with pytest.raises(InputError, match="is not there"):
        fetch("memory://nothing/labels.jsonl", Home(tmp_path))
