"""Whole trainings under DeepSpeed on two processes: what one process learns, by every method. One start.

The program of a process is scripts/train.py's; that `lensmith train` starts it so, under ZeRO-2 and ZeRO-3,
is in test_distributed.py and test_mixed_rows.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from tiny_families import write_tiny

from finetune.quantized import read_quantized
from tests.conftest import ROOT
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.divided import Divided
from tests.finetune.test_distributed import (
    FULL,
    TOLERANCE,
    assert_deepspeed,
    assert_same_weights,
    launcher,
)
from tests.finetune.test_packed_run import PACKED
from tests.finetune.test_packed_run import padded as padded  # a fixture
from tests.roomy import TOKENS

pytestmark = pytest.mark.slow

LIMIT_S = 600
ADAPTER = "adapter_model.safetensors"
# Each tower at its own rate: DeepSpeed must keep the optimizer's groups apart. DoRA reads the base's weights.
RATED: dict[str, Any] = {
    "train__tower_learning_rates": {"vision": 0.002, "connector": 0.02},
    "train__lora": {"variant": "dora", "rank": 4, "alpha": 8.0},
}
HALF: dict[str, Any] = {"train__batch_size": 1}
# Of a batch of four rows.
QUARTER: dict[str, Any] = {**HALF, "train__gradient_accumulation": 2, "train__max_steps": 3}


def losses(shared: Divided, name: str) -> list[float]:
    lines = (shared.run(name).path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def tokens(roomy: Path) -> dict[str, Any]:
    """Settings that teach new tokens."""
    return {"base__path": roomy, "train__new_tokens": TOKENS}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that adapt routed experts beside the rest of the language model."""
    return {
        "family": "qwen3_vl_moe",
        "base__path": write_tiny("qwen3_vl_moe", tmp_path_factory.mktemp("experts") / "base"),
        "train__towers": {"vision": "freeze", "connector": "freeze", "language": "adapt"},
        "train__lora": {"rank": 4, "alpha": 8.0, "experts": {"rank": 3, "alpha": 6.0}},
        "train__max_length": 1024,
    }


@pytest.fixture(scope="module")
def shared(
    new_training: TrainingMaker,
    deepspeed_config: dict[str, Any],
    preferences: dict[str, Any],
    tokens: dict[str, Any],
    experts: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Divided:
    """One start for all of them."""
    shipped = yaml.safe_load((ROOT / "recipes/accelerate/deepspeed_zero3.yaml").read_text())
    shipped |= {"num_processes": 2, "use_cpu": True}

    def make(
        stage: int, offload: str, settings: dict[str, Any], content: dict[str, Any] = deepspeed_config
    ) -> Training:
        config = launcher(tmp_path_factory.mktemp("launcher") / "zero.yaml", content, stage, offload)
        return new_training(**settings, train__launcher=config)

    trainings = {
        # First: what the others need nothing of is left out of a process for good.
        "qlora": make(2, "none", {"train__method": "qlora", **HALF}),
        "dora": make(3, "none", {**RATED, **HALF}),
        "offloaded": make(3, "cpu", HALF),
        "full": make(2, "cpu", {**FULL, **HALF}),
        "dpo 2": make(2, "none", {**preferences, **QUARTER}),
        "dpo 3": make(3, "none", {**preferences, **QUARTER}),
        # Sixteen rows of two processes, in two passes each.
        "packed": make(3, "none", {**PACKED, "train__batch_size": 8, "train__pack_length": 512}),
        "tokens": make(2, "none", {**tokens, **HALF}),
        "experts": make(3, "none", {**experts, **HALF}, shipped),
    }
    out = tmp_path_factory.mktemp("ended")
    config = trainings["qlora"].recipe.train.launcher
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    cases = [f"{name}:{each.recipe_path}:{each.home.root}" for name, each in trainings.items()]
    ended = subprocess.run(
        [sys.executable, *launch, str(ROOT / "tests/finetune/zero_trainings.py"), str(out), *cases],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}",
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    # What Triton leaves is told last.
    assert ended.returncode == 0, ended.stderr.partition("nanobind: leaked")[0][-3000:]
    errors = {
        name: [json.loads((out / f"{name}.{rank}.json").read_bytes()) for rank in (0, 1)]
        for name in trainings
    }
    return Divided(trainings, errors)


def test_zero3_dora(shared: Divided, new_training: TrainingMaker) -> None:
    single, run = new_training(**RATED), shared.run("dora")
    assert_deepspeed(run, 3)
    assert losses(shared, "dora") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert run.manifest.key == single.run().manifest.key
    assert_same_weights(run, single.run(), ADAPTER)


def test_zero2_qlora(shared: Divided, new_training: TrainingMaker) -> None:
    single, run = new_training(train__method="qlora"), shared.run("qlora")
    assert_deepspeed(run, 2)
    assert run.record()["linears_in_4_bits"] == 14
    assert losses(shared, "qlora") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), ADAPTER)
    assert read_quantized(run.path) == read_quantized(single.run().path)


def test_zero3_offloaded(shared: Divided, lora_losses: list[float]) -> None:
    """Weights and optimizer in host memory; AdamW is DeepSpeed's for CPUs, compiled where it runs."""
    assert_deepspeed(shared.run("offloaded"), 3, offload=["optimizer", "parameters"])
    assert losses(shared, "offloaded") == pytest.approx(lora_losses, abs=TOLERANCE)


def test_zero2_full_offloaded(shared: Divided, new_training: TrainingMaker) -> None:
    """The optimizer in host memory, as recipes/accelerate/deepspeed_zero2_offload.yaml has it."""
    single, run = new_training(**FULL), shared.run("full")
    assert_deepspeed(run, 2, offload=["optimizer"])
    assert losses(shared, "full") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), "model.safetensors")


@pytest.mark.parametrize("stage", [2, 3])
def test_preferences(shared: Divided, preferring: Training, stage: int) -> None:
    """Among them passes in which one process has pairs of text alone and the other an image."""
    assert_deepspeed(shared.run(f"dpo {stage}"), stage)
    assert losses(shared, f"dpo {stage}") == pytest.approx(preferring.losses()[:3], abs=TOLERANCE)


def test_zero3_packed(shared: Divided, padded: Training) -> None:
    assert_deepspeed(shared.run("packed"), 3)
    assert losses(shared, "packed") == pytest.approx(padded.losses(), abs=2e-5)


def test_new_tokens(shared: Divided, new_training: TrainingMaker, tokens: dict[str, Any]) -> None:
    single, run = new_training(**tokens), shared.run("tokens")
    assert_deepspeed(run, 2)
    assert losses(shared, "tokens") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), ADAPTER)


def test_zero3_experts(shared: Divided, new_training: TrainingMaker, experts: dict[str, Any]) -> None:
    """Two processes, which hold a part of each, learn what one does."""
    single, run = new_training(**experts), shared.run("experts")
    assert run.record()["engine"]["zero_stage"] == 3
    assert run.record()["engine"]["experts"] == "grouped_mm"
    assert losses(shared, "experts") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), ADAPTER)
    assert any("experts" in name for name in load_file(run.path / ADAPTER))
