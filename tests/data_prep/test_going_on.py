"""What is not done twice: after a kill in the middle of a step, and after a few pictures have changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep import leaks
from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request
from data_prep.engines.local import LocalEngine
from data_prep.prepare import Prepared, prepare
from data_prep.sight import SEE, SHOW, STORE, show
from data_prep.sources.source import Found
from lensmith.artifact import verify
from lensmith.dataset import held_out_reads, read_split, split_file
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.row_file import RowFile, images_file
from tests.conftest import ROOT
from tests.data_prep.folder import Folder, picture
from tests.data_prep.killed_midway import BATCH

ROWS = 40


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many rows are screened ("rows"), and how many pictures are opened, by the work."""
    counted: Counter[str] = Counter()
    screen, facts = LocalEngine.screen, DecoderPool.facts

    def counting_screen(self: LocalEngine, batches: Iterable[list[Found]]) -> Iterator[list[Found]]:
        for batch in screen(self, batches):
            counted["rows"] += len(batch)
            yield batch

    def counting_facts(self: DecoderPool, requests: Iterable[Request], work: str = "") -> Iterator[Any]:
        for answer in facts(self, requests, work):
            counted[work or self.work] += 1
            yield answer

    def counting_show(png: bytes, limits: ImageLimits) -> bytes:
        counted[SHOW] += 1
        return show(png, limits)

    monkeypatch.setattr(LocalEngine, "screen", counting_screen)
    monkeypatch.setattr(DecoderPool, "facts", counting_facts)
    monkeypatch.setattr(leaks, "show", counting_show)
    return counted


@pytest.fixture
def filled(folder: Folder) -> Folder:
    folder.fill(ROWS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "at", "left"),
    [
        # Killed at the 30th: three batches are written down, and the six of the fourth are not.
        ("reading", 30, {"rows": ROWS - 3 * BATCH, SEE: ROWS, STORE: ROWS, SHOW: ROWS}),
        # The fourth was already remembered by the digests of its files.
        ("looking", 30, {SEE: ROWS - 4 * BATCH, STORE: ROWS, SHOW: ROWS}),
        # A half written file is written anew; nothing is read or looked at for it.
        ("writing", 10, {STORE: ROWS, SHOW: ROWS}),
        # In the second file: the first is not taken for whole.
        ("writing", 30, {STORE: ROWS, SHOW: ROWS}),
    ],
)
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(
    filled: Folder, tmp_path: Path, done: Counter[str], step: str, at: int, left: dict[str, int]
) -> None:
    recipe = filled.recipe()
    whole = prepare(recipe, Home(tmp_path / "whole"))
    assert done == {"rows": ROWS, SEE: ROWS, STORE: ROWS, SHOW: ROWS}
    home = Home(tmp_path / "home")
    argv = [sys.executable, "-m", "tests.data_prep.killed_midway", str(filled.root.with_suffix(".yaml"))]
    killed = subprocess.run([*argv, str(home.root), step, str(at)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert home.all() == []
    done.clear()
    again = prepare(recipe, home)
    assert done == left
    assert (again.dataset.id, again.held_out.id) == (whole.dataset.id, whole.held_out.id)
    assert again.intake.body == whole.intake.body
    assert not list(home.root.rglob("*.partial"))


@pytest.mark.slow
def test_only_what_changed_is_looked_at_encoded_and_proven_again(
    folder: Folder, home: Home, tmp_path: Path, done: Counter[str]
) -> None:
    folder.fill(100)
    first = prepare(folder.recipe(), home)
    assert done == {"rows": 100, SEE: 100, STORE: 100, SHOW: 100}
    learned = [row.sample.id for split in ("train", "validation") for row in read_split(first.dataset, split)]
    done.clear()
    folder.image(f"{learned[0]}.png", picture(4242))
    again = prepare(folder.recipe(), home)
    assert done == {"rows": 100, SEE: 1, STORE: 1, SHOW: 1}
    # That pictures of the earlier exam went into the next is told, once.
    (read,) = held_out_reads(home, first.held_out)
    assert "prepared again" in read.reason
    # What was remembered is what is seen: a home that remembers nothing makes the same.
    assert again.dataset.id == prepare(folder.recipe(), Home(tmp_path / "fresh")).dataset.id


def test_copied_and_touched_files_are_known_by_their_bytes(
    filled: Folder, home: Home, tmp_path: Path, done: Counter[str]
) -> None:
    first = prepare(filled.recipe(), home)
    elsewhere = Folder(tmp_path / "elsewhere")
    elsewhere.lines = filled.lines
    for at, path in enumerate(sorted((filled.root / "images").iterdir())):
        # One of them has the size of a known file, and other bytes.
        data = path.read_bytes()
        elsewhere.image(path.name, data[:-1] + b"x" if not at else data)
    done.clear()
    prepare(elsewhere.recipe(), home)
    assert done[SEE] == 1
    done.clear()
    for path in (filled.root / "images").iterdir():
        os.utime(path, ns=(1, 1))
    assert prepare(filled.recipe(), home).dataset.id == first.dataset.id
    assert not done[SEE]


def same_rows_again(folder: Folder, home: Home) -> Prepared:
    """Another dataset of the same rows and splits: its key is another, its pictures are known."""
    return prepare(folder.recipe(long_answer=31), home)


def flip_a_bit(file: Path, behind: bytes) -> None:
    data = file.read_bytes()
    at = data.index(behind) + 8
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


# Pillow does not look at the checksum behind IEND: that file decodes to the same pixels.
@pytest.mark.parametrize("harm", ["removed", "cut", "one bit", "a bit of no pixel"])
def test_a_picture_that_is_no_longer_stored_as_it_was_is_encoded_again(
    filled: Folder, home: Home, done: Counter[str], harm: str
) -> None:
    first = prepare(filled.recipe(), home)
    images = images_file(first.dataset.path / split_file("train"))
    if harm == "removed":
        shutil.rmtree(first.dataset.path)
    elif harm == "cut":
        images.write_bytes(images.read_bytes()[:-100])
    else:
        flip_a_bit(images, b"IDAT" if harm == "one bit" else b"IEND")
    done.clear()
    again = same_rows_again(filled, home)
    rows = again.dataset.body["rows"]
    counts = {"removed": rows["train"] + rows["validation"], "cut": rows["train"]}
    assert done[STORE] == counts.get(harm, 1)
    verify(again.dataset)
    assert again.dataset.manifest.files == first.dataset.manifest.files


def test_a_stored_picture_is_digested_once_beside_the_seal(
    filled: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(filled.recipe(), home)
    stored = {bytes(image.png) for image in RowFile(first.dataset.path / split_file("train")).images()}
    digested: Counter[bytes] = Counter()
    sha256 = hashlib.sha256

    def counting(data: bytes | memoryview = b"") -> Any:
        digested[bytes(data)] += 1
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", counting)
    # With another among them they lie in another file, to which they are copied.
    changed = read_split(first.dataset, "train")[0]
    filled.image(f"{changed.sample.id}.png", picture(4242))
    same_rows_again(filled, home)
    assert {digested[png] for png in stored.difference(changed.images)} == {1}


def test_pictures_as_other_code_wrote_them_are_encoded_again(
    filled: Folder, home: Home, done: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(filled.recipe(), home)
    monkeypatch.setattr("data_prep.stored_before.sight_version", lambda limits: bytes(16))
    done.clear()
    same_rows_again(filled, home)
    assert done[STORE] == ROWS
