"""Image paths that lead astray and files that are not images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_prep.decoding.frames import Answer
from data_prep.decoding.verdict import Ending, flaw_for
from data_prep.decoding.work import Budget
from data_prep.decoding.worker import answer
from data_prep.pictures import file_to_read, locate
from data_prep.refusal import Flaw
from data_prep.seen import Seen
from data_prep.sight import see
from data_prep.sources.canonical_jsonl import CanonicalJsonl
from lensmith.images import ImageLimits
from tests.data_prep.folder import picture

LIMITS = ImageLimits()


def opened(root: Path, path: str, limits: ImageLimits = LIMITS) -> Seen | Flaw:
    """What preparation makes of the picture, short of the worker process."""
    found = CanonicalJsonl(root / "labels.jsonl").picture(path)
    if isinstance(found, Flaw):
        return found
    assert isinstance(found, Path)
    checked = file_to_read(found, path, limits)
    if isinstance(checked, Flaw):
        return checked
    kind, said = answer(see, found, limits)
    return said if kind is Answer.DONE else flaw_for(path, Ending.UNREADABLE, said, Budget())


def flaw_of(root: Path, path: str, limits: ImageLimits = LIMITS) -> Flaw:
    found = opened(root, path, limits)
    assert isinstance(found, Flaw), f"{path} was opened"
    assert found.mend
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.png").write_bytes(picture(1))
    (tmp_path / "outside.png").write_bytes(picture(2))
    return folder


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../outside.png",
        "images/../../outside.png",
        "images/../images/a.png",
        "images\\a.png",
        "C:\\a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "images/a.png\0.jpg",
    ],
)
def test_paths_that_are_not_below_the_folder(root: Path, path: str) -> None:
    assert flaw_of(root, path).code == "image_path"


def test_links_may_stay_inside_and_not_lead_out(root: Path, tmp_path: Path) -> None:
    (root / "images/inside.png").symlink_to("a.png")
    assert isinstance(opened(root, "images/inside.png"), Seen)
    (root / "images/out.png").symlink_to(tmp_path / "outside.png")
    (root / "up").symlink_to(tmp_path)
    (root / "round.png").symlink_to("round.png")
    assert flaw_of(root, "images/out.png").code == "image_path"
    assert flaw_of(root, "up/outside.png").code == "image_path"
    # Python 3.13 follows a circle of links no further and leaves it to the system to refuse it.
    assert flaw_of(root, "round.png").code in ("image_path", "image_unreadable")


def test_what_is_not_there_or_not_a_file(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    for path in ("images/b.png", "images", "images/a.png/b.png", "pipe.png"):
        assert flaw_of(root, path).code == "image_missing"
    assert flaw_of(root, "images/" + "x" * 300 + ".png").code in (
        "image_unreadable",
        "image_missing",
        "image_path",
    )


def test_files_that_are_no_images(root: Path) -> None:
    whole = picture(3, kind="JPEG")
    for name, data in {"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}.items():
        (root / f"{name}.jpg").write_bytes(data)
        assert flaw_of(root, f"{name}.jpg").code == "image_unreadable"


def test_limits_are_checked_before_the_file_is_read(root: Path) -> None:
    with (root / "huge.png").open("wb") as stream:
        stream.truncate(1 << 40)
    assert "bytes" in flaw_of(root, "huge.png").what
    assert "pixels" in flaw_of(root, "images/a.png", ImageLimits(max_pixels=100)).what


def test_nothing_names_a_place_on_this_machine(root: Path, tmp_path: Path) -> None:
    (root / "text.png").write_bytes(b"hello")
    (root / "out.png").symlink_to(tmp_path / "outside.png")
    for path in ("text.png", "out.png", "nowhere.png"):
        flaw = flaw_of(root, path)
        assert str(tmp_path) not in flaw.what + flaw.mend
        assert "0x" not in flaw.what
        assert flaw_of(root, path) == flaw


def test_locate_does_not_ask_whether_the_file_is_there(root: Path) -> None:
    assert locate(root, "images/new.png") == root / "images/new.png"
