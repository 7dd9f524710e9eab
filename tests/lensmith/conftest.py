"""What the tests of the spine share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "recipes" / "forms"
    path.mkdir(parents=True)
    return path
