"""SIGKILL at every file boundary of a checkpoint's save, and of the run's: the same command ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.finetune.conftest import Training, TrainingMaker

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("killed_saves.py")
SETTINGS: dict[str, Any] = {"train__max_steps": 2, "train__save_every": 1, "train__keep_last": 1}
# Of a checkpoint of one process, each written by another hand: PEFT, transformers, torch, us.
FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training_args.bin",
)


def killed(training: Training, scratch: Path, *options: str) -> list[dict[str, Any]]:
    """What `killed_saves` found."""
    scratch.mkdir()
    words = [str(training.recipe_path), str(training.home.root), str(scratch), *options]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_killed_at_every_boundary(new_training: TrainingMaker, tmp_path: Path) -> None:
    unbroken, *ends = killed(new_training(**SETTINGS), tmp_path / "kills")
    for each in ends:
        assert (each["ended"], each["again"]) == (-signal.SIGKILL, 0), each
        assert each["id"] == unbroken["id"], each
    places = {each["at"] for each in ends}
    work, run = "work/*/checkpoint-2", "artifacts/run/*.partial"
    for name in FILES:
        what = "write" if name.endswith("json") else "half"
        assert f"{what} {work}/{name}" in places
    assert f"rename {work}/checkpoint.json" in places
    assert {"remove work/*/checkpoint-1/checkpoint.json", "rmdir work/*/checkpoint-1"} <= places
    for name in ("adapter_model.safetensors", "adapter_config.json", "metrics.jsonl", "manifest.json"):
        assert any(each.endswith(f" {run}/{name}") for each in places), name
    assert {"rename artifacts/run/*", "rmdir work/*"} <= places


def test_a_manifest_before_its_files_would_show(new_training: TrainingMaker, tmp_path: Path) -> None:
    """The mutant of the test above."""
    _, *ends = killed(new_training(**SETTINGS), tmp_path / "kills", "--careless")
    assert ends[-1]["again"] != 0
    assert ends[-1]["id"] is None
