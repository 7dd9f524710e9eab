"""A file's digest is the same through the system's cache and past it."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from lensmith.files import digest_file, digest_from_disk


@pytest.mark.parametrize("size", [0, 1, 4096, (4 << 20) - 1, 4 << 20, (8 << 20) + 5])
@pytest.mark.parametrize("way", ["past", "through"])
def test_both_ways_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, way: str) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    opened = os.open

    def refusing(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, flags, *rest)

    if way == "through":
        monkeypatch.setattr(os, "open", refusing)
    assert digest_from_disk(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert digest_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_from_disk(tmp_path / "file")
