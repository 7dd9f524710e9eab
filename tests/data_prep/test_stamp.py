"""Files that are not read again: those that nobody can have changed since."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from data_prep import looking, stamp
from data_prep.picture_cache import PictureCache
from data_prep.prepare import prepare
from data_prep.stamp import SETTLED_NS, Stamp
from lensmith.home import Home
from lensmith.images import ImageLimits
from tests.data_prep.folder import Folder, picture

DIGEST = bytes(16)


def test_only_a_settled_stamp_is_relied_on(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    new = Stamp.of(path.stat())
    assert not new.settled
    with PictureCache(tmp_path / "cache.sqlite", ImageLimits()) as cache:
        cache.keep((), [(path, new, DIGEST)])
        assert cache.file_of(path, new) is None
        # It is still read before it is opened: reading is cheaper.
        assert cache.knows_size(1)
        old = Stamp(new.size, new.content_ns, new.any_ns, new.inode, settled=True)
        cache.keep((), [(path, old, DIGEST)])
        assert cache.file_of(path, new) == DIGEST


@pytest.mark.parametrize("later", ["content", "any"])
def test_either_time_unsettles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    if later == "any":
        os.utime(path, ns=(1, 1))
    facts = path.stat()
    last = max(facts.st_mtime_ns, facts.st_ctime_ns)
    monkeypatch.setattr(stamp.time, "time_ns", lambda: last + SETTLED_NS)
    assert not Stamp.of(facts).settled
    monkeypatch.setattr(stamp.time, "time_ns", lambda: last + SETTLED_NS + 1)
    assert Stamp.of(facts).settled


@pytest.mark.parametrize("change", ["size", "content_ns", "any_ns", "inode"])
def test_each_of_its_figures_tells(tmp_path: Path, change: str) -> None:
    known = {"size": 1, "content_ns": 2, "any_ns": 3, "inode": 4}
    with PictureCache(tmp_path / "cache.sqlite", ImageLimits()) as cache:
        cache.keep((), [(tmp_path, Stamp(**known, settled=True), DIGEST)])
        assert cache.file_of(tmp_path, Stamp(**known, settled=False)) == DIGEST
        assert cache.file_of(tmp_path, Stamp(**(known | {change: 9}), settled=True)) is None


@pytest.mark.slow
def test_a_picture_with_its_size_and_time_kept_is_seen_to_be_another(
    folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    read_file = looking.read_file

    def counting(path: Path, most: int) -> bytes:
        read[path.name] += 1
        return read_file(path, most)

    monkeypatch.setattr(looking, "read_file", counting)
    monkeypatch.setattr(stamp, "SETTLED_NS", 0)
    folder.fill(20)
    place = folder.root / folder.image("kept.bmp", picture(1001, kind="BMP"))
    folder.add(folder.row("kept", path="images/kept.bmp"))
    first = prepare(folder.recipe(), home)
    facts = place.stat()
    place.write_bytes(picture(1002, kind="BMP"))
    os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (place.stat().st_size, place.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    # Asked the same, it would say that all is prepared: size and time are all that a key holds of a file, so
    # that a folder which is copied with its times is the same data.
    again = prepare(folder.recipe(long_answer=31), home)
    assert (again.dataset.id, again.held_out.id) != (first.dataset.id, first.held_out.id)
    # All others were left alone.
    assert set(read) == {"kept.bmp"}
