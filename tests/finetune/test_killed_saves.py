"""SIGKILL at every file boundary of a checkpoint's save, and of the run's: the same command ends the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_distributed import FULL

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
# What a fully trained model has in their place; the rest of its save is the same.
WHOLE = ("model.safetensors", "generation_config.json")
Found = list[dict[str, Any]]


def killed(scratch: Path, cases: Sequence[tuple[Training, str]], *options: str) -> list[Found]:
    """What `killed_saves` found of each training, killed at boundaries of that pattern."""
    given = [f"{each.recipe_path}:{each.home.root}:{pattern}" for each, pattern in cases]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(scratch), *given, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [[line for line in lines if line["case"] == number] for number in range(len(cases))]


@pytest.fixture(scope="module")
def ends(new_training: TrainingMaker, tied: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """Of LoRA, at every boundary, and of all weights of a tied base. One start."""
    lora, full = new_training(**SETTINGS), new_training(**SETTINGS, **FULL, base__path=tied)
    return killed(tmp_path_factory.mktemp("kills"), [(lora, ""), (full, "|".join(map(re.escape, WHOLE)))])


def assert_same_end(found: Found) -> set[str]:
    """Where it was killed."""
    unbroken, *ends = found
    for each in ends:
        assert (each["ended"], each["again"]) == (-signal.SIGKILL, 0), each
        assert each["id"] == unbroken["id"], each
    return {each["at"] for each in ends}


def test_killed_at_every_boundary(ends: list[Found]) -> None:
    places = assert_same_end(ends[0])
    work, run = "work/*/checkpoint-2", "artifacts/run/*.partial"
    for name in FILES:
        what = "write" if name.endswith("json") else "half"
        assert f"{what} {work}/{name}" in places
    assert f"rename {work}/checkpoint.json" in places
    assert {"remove work/*/checkpoint-1/checkpoint.json", "rmdir work/*/checkpoint-1"} <= places
    for name in ("adapter_model.safetensors", "adapter_config.json", "metrics.jsonl", "manifest.json"):
        assert any(each.endswith(f" {run}/{name}") for each in places), name
    assert {"rename artifacts/run/*", "rmdir work/*"} <= places


def test_all_weights(ends: list[Found]) -> None:
    work, run = "work/*/checkpoint-2", "artifacts/run/*.partial"
    weights, settings = WHOLE
    wanted = {f"half {work}/{weights}", f"write {work}/{settings}"}
    assert assert_same_end(ends[1]) == wanted | {f"write {run}/{name}" for name in WHOLE}


def test_a_manifest_before_its_files_would_show(new_training: TrainingMaker, tmp_path: Path) -> None:
    """The mutant of the tests above."""
    ((_, *ends),) = killed(tmp_path, [(new_training(**SETTINGS), "")], "--careless")
    assert ends[-1]["again"] != 0
    assert ends[-1]["id"] is None
