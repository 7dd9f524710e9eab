"""Files of pictures that a later dataset shares with an earlier one, where they are still what they were."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep import shards, stored_before
from data_prep.prepare import Prepared, prepare
from lensmith.artifact import verify
from lensmith.dataset import read_split, split_file
from lensmith.home import Home
from lensmith.row_file import images_files
from tests.data_prep.folder import Folder, picture

ROWS = 60
# Each prepares dozens of rows twice.
pytestmark = pytest.mark.slow


@pytest.fixture
def filled(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Rows whose pictures, of 48 x 32 pixels, come into files of about two."""
    monkeypatch.setattr(shards, "LEAST_PIXELS", 2 * 48 * 32)
    folder.fill(ROWS)
    return folder


def files(prepared: Prepared) -> list[Path]:
    return images_files(prepared.dataset.path / split_file("train"))


def shared(one: Prepared, other: Prepared) -> int:
    """How many files of training pictures are the same file in both."""
    known = {path.stat().st_ino for path in files(one)}
    return sum(path.stat().st_ino in known for path in files(other))


def same_rows_again(folder: Folder, home: Home) -> Prepared:
    """Another dataset of the same rows and splits: its key is another, its pictures are known."""
    return prepare(folder.recipe(long_answer=31), home)


def test_only_files_with_a_changed_picture_are_written(
    filled: Folder, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(filled.recipe(), home)
    assert len(files(first)) > 5
    changed = read_split(first.dataset, "train")[20].sample.id
    filled.image(f"{changed}.png", picture(4242))
    digested: Counter[str] = Counter()
    digest_file = stored_before.digest_file

    def counting(path: Path) -> str:
        digested[path.name] += 1
        return digest_file(path)

    monkeypatch.setattr(stored_before, "digest_file", counting)
    monkeypatch.setattr("lensmith.artifact.digest_file", counting)
    again = prepare(filled.recipe(), home)
    assert len(files(again)) - 3 <= shared(first, again) < len(files(again))
    # The seal takes what was read back, and no file is read twice as a whole.
    assert {digested[path.name] for path in files(again)} == {1}
    verify(again.dataset)
    fresh = prepare(filled.recipe(), Home(tmp_path / "fresh"))
    assert (again.dataset.id, again.held_out.id) == (fresh.dataset.id, fresh.held_out.id)


def test_datasets_reads_the_files_in_their_order(filled: Folder, home: Home, tmp_path: Path) -> None:
    import datasets

    prepared = prepare(filled.recipe(), home)
    # Then the order of their names is another.
    assert len(files(prepared)) > 10
    path, cache = str(prepared.dataset.path), str(tmp_path / "cache")
    images = datasets.load_dataset(path, "images", split="train", cache_dir=cache)
    mine = read_split(prepared.dataset, "train").images()
    assert list(images["digest"]) == [image.digest for image in mine]


def test_a_shared_file_that_was_changed_is_found_and_written_anew(filled: Folder, home: Home) -> None:
    first = prepare(filled.recipe(), home)
    victim = files(first)[1]
    data = bytearray(victim.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 1
    victim.write_bytes(data)
    again = same_rows_again(filled, home)
    assert again.dataset.manifest.files == first.dataset.manifest.files
    verify(again.dataset)
    assert shared(first, again) == len(files(first)) - 1
    # What is spoiled stays as it was found: nothing is written into a file that another dataset has.
    assert victim.read_bytes() == data


def test_where_files_cannot_be_shared_pictures_are_copied(
    filled: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(filled.recipe(), home)

    def refusing(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refusing)
    again = same_rows_again(filled, home)
    assert again.dataset.manifest.files == first.dataset.manifest.files
    assert not shared(first, again)


def test_no_more_files_are_opened_than_a_process_may_have(
    filled: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(filled.recipe(), home)
    monkeypatch.setattr(stored_before, "MOST_OPEN_FILES", len(files(first)))
    again = same_rows_again(filled, home)
    assert again.dataset.manifest.files == first.dataset.manifest.files
    assert not shared(first, again)


def test_a_file_that_other_code_laid_out_is_not_shared(
    filled: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(filled.recipe(), home)
    versions = stored_before.package_versions
    monkeypatch.setattr(
        stored_before, "package_versions", lambda names: {**versions(names), "pyarrow": "another"}
    )
    assert not shared(first, same_rows_again(filled, home))


def test_an_artifact_that_was_there_is_not_taken_for_what_was_written(filled: Folder, home: Home) -> None:
    """Preparations that differ in the report alone make one dataset: the later one's files are dropped."""
    first = prepare(filled.recipe(), home)
    (home.root / "cache/stored.sqlite").unlink()
    for path in first.intake.path.rglob("manifest.json"):
        path.unlink()
    assert prepare(filled.recipe(), home).dataset.path == first.dataset.path
    assert not shared(first, same_rows_again(filled, home))
