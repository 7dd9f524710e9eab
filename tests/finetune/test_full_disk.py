"""A disk that is full in a save: one clear error, nothing half counts, and with space the run is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.finetune.conftest import TrainingMaker

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("full_disk.py")
DISK = 'mount -t tmpfs -o size=256m tmpfs "$4" && exec "$0" "$PROGRAM" "$@"'


def test_full_in_a_save(new_training: TrainingMaker, tmp_path: Path) -> None:
    training = new_training(train__save_every=1, train__keep_last=1)
    scratch, disk = tmp_path / "scratch", tmp_path / "disk"
    scratch.mkdir()
    disk.mkdir()
    words = [str(each) for each in (training.recipe_path, training.home.root, scratch, disk)]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", DISK, sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PROGRAM": str(PROGRAM),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    unbroken, *times = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(times) == 5
    for each in times:
        assert each["code"] == 2, each
        assert f"no space left under {disk / 'home'}" in each["said"]
        assert "Traceback" not in each["said"]
        assert (each["again"], each["id"]) == (0, unbroken["id"]), each
    assert [each["steps"] for each in times] == [[1]] * 3 + [[3], [1]]
    assert "the same command goes on from the last checkpoint" in times[0]["said"]
