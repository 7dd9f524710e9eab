"""scripts/train.py: what is missing is said at once, before anything heavy is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, RecipeMaker

SCRIPT = ROOT / "scripts" / "train.py"


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_unprepared_data(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe, error = make_recipe(), tmp_path / "error.json"
    done = run([str(recipe), "--home", str(tmp_path / "home")], LENSMITH_ERROR_FILE=str(error))
    assert done.returncode == 2
    assert "has no dataset for" in done.stderr
    assert f"lensmith prepare {recipe} --home {tmp_path / 'home'}" in done.stderr
    assert "Traceback" not in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "torch" not in imported
    left = json.loads(error.read_text())
    assert left["class"] == "InputError"
    assert "has no dataset for" in left["summary"]


def test_wrong_recipe(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    done = run([str(make_recipe()), "--home", str(tmp_path / "home"), "-s", "train.epoch=2"])
    assert done.returncode == 2
    assert "did you mean 'epochs'" in done.stderr
    assert "Traceback" not in done.stderr
