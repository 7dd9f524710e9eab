"""Rows with an image and rows of text alone in one run: from labels to weights, on one process and on two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import launch
from finetune.launcher import read_launcher
from finetune.live import read_progress
from finetune.packing import Packing
from finetune.run import run_key
from lensmith.dataset import read_split
from lensmith.process import run_child, stop_tree
from tests.conftest import ROOT
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_distributed import TOLERANCE, assert_deepspeed, assert_same_weights, launcher

pytestmark = pytest.mark.slow

# Three times what the whole run takes on two quiet cores; for the steps alone, once the model is loaded.
LIMIT_S = 60
LOADING_S = 300
STEPS = 3
SHARED: dict[str, Any] = {"train__batch_size": 1, "train__gradient_accumulation": 2}


@pytest.fixture(scope="module")
def mixed(bank_forms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every second form without its image, its answer asked for in words; settings of a recipe on them."""
    out = tmp_path_factory.mktemp("mixed")
    shutil.copytree(bank_forms / "images", out / "images")
    lines = []
    for number, line in enumerate((bank_forms / "labels.jsonl").read_text().splitlines()):
        # Some of the handed-over lines are no JSON.
        if number % 2 and line.endswith("}"):
            row = json.loads(line)
            answer = row["messages"][-1]["content"]
            row["messages"][0]["content"] = f"Write form {number} as JSON. {json.dumps(answer)[:60]}"
            line = json.dumps(row)
        lines.append(line + "\n")
    (out / "labels.jsonl").write_text("".join(lines))
    return {
        "data__source": str(out / "labels.jsonl"),
        "data__text_only": True,
        "train__max_steps": STEPS,
        "train__batch_size": 4,
    }


@pytest.fixture(scope="module")
def single(new_training: TrainingMaker, mixed: dict[str, Any]) -> Training:
    training = new_training(**mixed)
    training.run()
    return training


def with_images(training: Training) -> Iterator[list[bool]]:
    """Of each step that is trained, which of its rows show an image."""
    rows = read_split(training.dataset, "train")
    lengths = torch.ones(len(rows), dtype=torch.int64).numpy()
    steps = Packing(lengths, lengths, 1, 4, 1, training.recipe.train.seed).steps(0)
    for step in steps[:STEPS]:
        yield [bool(rows[row].images) for row in step]


def test_two_processes_under_zero3(
    new_training: TrainingMaker,
    single: Training,
    mixed: dict[str, Any],
    deepspeed_config: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Where one process has text alone and the other an image: the losses and weights of one process."""
    config = launcher(tmp_path / "zero3.yaml", deepspeed_config, 3)
    training = new_training(**{**mixed, "train__launcher": config, **SHARED})
    # Processes take turns: both passes of a step have a row of each.
    passes = [pair for step in with_images(training) for pair in zip(step[::2], step[1::2], strict=True)]
    assert any(left != right for left, right in passes)
    launch.train(training.recipe, training.recipe_path, (), training.home, training.base, training.dataset)
    assert_deepspeed(training.run(), 3)
    assert training.losses() == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(training.run(), single.run(), "adapter_model.safetensors")


def test_without_the_blank_image_they_do_not_come_back(
    new_training: TrainingMaker,
    mixed: dict[str, Any],
    deepspeed_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = launcher(tmp_path / "zero3.yaml", deepspeed_config, 3)
    training = new_training(**{**mixed, "train__launcher": config, **SHARED})
    monkeypatch.setattr(launch, "SCRIPT", ROOT / "tests/finetune/train_without_blank_image.py")
    command = launch.accelerate_command(read_launcher(config), training.recipe_path, (), training.home)
    with (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        process = run_child(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    work = training.home.work_path(run_key(training.recipe, training.base, training.dataset))
    try:
        deadline = time.monotonic() + LOADING_S
        while process.poll() is None and "sees no blank image" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert process.wait(LIMIT_S) != 0
        assert "mismatch" in (tmp_path / "log").read_text()
    except subprocess.TimeoutExpired:
        # What happens without gloo's own check: both wait, each for another weight.
        assert read_progress(work) is None, "slow, but they came back"
    finally:
        stop_tree(process)


def test_packed(new_training: TrainingMaker, single: Training, mixed: dict[str, Any]) -> None:
    """A pack of text alone, and one that mixes both."""
    packed = new_training(**mixed, train__pack_length=600)
    packed.run()
    assert packed.losses() == pytest.approx(single.losses(), abs=1e-5)
