"""Whole trainings under FSDP2 on two CPUs: what one process learns, saved and gone on from; or an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lensmith.artifact import Artifact
from tests.conftest import ROOT
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.divided import Divided
from tests.finetune.test_distributed import FULL, TOLERANCE, WHOLE, assert_same_weights
from tests.finetune.test_examiner import assert_evaluated_as_alone, assert_made_up_for
from tests.finetune.test_mixed_rows import SHARED
from tests.finetune.test_mixed_rows import mixed as mixed  # a fixture

pytestmark = pytest.mark.slow

LIMIT_S = 600
# Below every norm of theirs.
CLIPPED = {"train__max_grad_norm": 0.3}
# Of each pass a process has half of the rows.
HALF: dict[str, Any] = {"train__batch_size": 1}
REFUSED = {
    "whole": "patch_embed.proj.weight: is not divided over 2 processes",
    "left out": "accelerate chose MULTI_GPU, not FSDP2",
    "in one piece": "visual.blocks.0: is not gathered by itself",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped launcher config, for two processes."""
    content = yaml.safe_load((ROOT / "recipes/accelerate/fsdp2.yaml").read_text())
    path = tmp_path_factory.mktemp("config") / "fsdp2.yaml"
    path.write_text(yaml.safe_dump({**content, "num_processes": 2}))
    return path


@pytest.fixture(scope="module")
def settings(
    mixed: dict[str, Any], preferences: dict[str, Any], examined: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """By name those of a recipe; rows of text alone among them, but for full."""
    return {
        "lora": {**mixed, **CLIPPED, "train__gradient_checkpointing": True},
        "full": {**FULL, **CLIPPED},
        "half": {**mixed, "train__dtype": "bfloat16", "train__pack_length": 600},
        "dpo": {**preferences, "train__max_steps": 2},
        "beside": {**WHOLE, **CLIPPED},
        "evaluated": {**mixed, **examined},
    }


@pytest.fixture(scope="module")
def alone(new_training: TrainingMaker, settings: dict[str, dict[str, Any]]) -> dict[str, Training]:
    """The same, each on one process."""
    return {name: new_training(**given) for name, given in settings.items()}


@pytest.fixture(scope="module")
def divided(
    new_training: TrainingMaker,
    settings: dict[str, dict[str, Any]],
    config: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Divided:
    """One start for all of them."""
    two = {"train__batch_size": 2}
    shares = {"lora": SHARED, "full": HALF, "beside": HALF, "half": two, "dpo": two, "evaluated": SHARED}

    def make(name: str) -> Training:
        return new_training(**{**settings[name], **shares[name], "train__launcher": config})

    trainings = {name: make(name) for name in ("lora", "full", "half", "dpo", "beside")}
    trainings["killed"] = trainings["resumed"] = make("lora")
    trainings["killed full"] = trainings["resumed full"] = make("full")
    trainings["evaluated"] = make("evaluated")
    trainings["told"] = trainings["told again"] = make("evaluated")
    trainings |= dict.fromkeys(REFUSED, make("lora"))
    out = tmp_path_factory.mktemp("ended")
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    cases = [f"{name}:{each.recipe_path}:{each.home.root}" for name, each in trainings.items()]
    ended = subprocess.run(
        [sys.executable, *launch, str(ROOT / "tests/finetune/fsdp2_trainings.py"), str(out), *cases],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return Divided.read(trainings, out)


def assert_divided(run: Artifact, model: str) -> None:
    engine = run.record()["engine"]
    assert (engine["class"], engine["processes"], engine["device"]) == (f"FSDP{model}", 2, "cpu")
    assert engine["share"] < 0.52


def metrics(run: Artifact) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "model", "file"),
    [
        ("lora", "PeftModelForCausalLM", "adapter_model.safetensors"),
        ("full", "Qwen3VLForConditionalGeneration", "model.safetensors"),
        ("dpo", "PeftModelForCausalLM", "adapter_model.safetensors"),
        ("beside", "PeftModelForCausalLM", "adapter_model.safetensors"),
    ],
)
def test_what_one_process_learns(
    divided: Divided, alone: dict[str, Training], name: str, model: str, file: str
) -> None:
    """Losses, norms of gradients before they are clipped, and weights; of full a frozen tower too."""
    run, single = divided.run(name), alone[name].run()
    assert_divided(run, model)
    assert run.manifest.key == single.manifest.key
    for ours, theirs in zip(metrics(run), metrics(single), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=TOLERANCE)
    assert_same_weights(run, single, file)


def test_packed_in_bfloat16(divided: Divided, alone: dict[str, Training]) -> None:
    """Weights are gathered in bfloat16; the adapter that learns, and the loss, stay in float32."""
    run, single = divided.run("half"), alone["half"].run()
    assert_divided(run, "PeftModelForCausalLM")
    losses = torch.tensor([line["loss"] for line in metrics(run)])
    assert losses.tolist() == pytest.approx([line["loss"] for line in metrics(single)], abs=0.005)
    assert not torch.equal(losses, losses.bfloat16().float())
    adapter = load_file(run.path / "adapter_model.safetensors")
    assert {each.dtype for each in adapter.values()} == {torch.float32}
    assert not all(torch.equal(each, each.bfloat16().float()) for each in adapter.values())


@pytest.mark.parametrize(("kind", "name"), [("", "lora"), (" full", "full")])
def test_killed_and_resumed(divided: Divided, kind: str, name: str) -> None:
    """The same in every byte."""
    for error in divided.errors[f"killed{kind}"]:
        assert error is not None
        assert "optimizer.bin" in error
        # accelerate's own form of the weights, which all of them would be in a second time.
        assert ("pytorch_model_fsdp.bin" in error) == (name == "lora")
    run, unbroken = divided.run(f"resumed{kind}"), divided.run(name)
    assert run.record()["resumed_at"] == 2
    assert run.id == unbroken.id


def test_evaluated(divided: Divided, alone: dict[str, Training]) -> None:
    assert_evaluated_as_alone(divided, alone["evaluated"])


def test_told_to_stop_while_asking(divided: Divided) -> None:
    assert_made_up_for(divided)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_divided_is_not_trained(divided: Divided, name: str) -> None:
    for error in divided.errors[name]:
        assert error is not None
        assert REFUSED[name] in error
    work = divided.trainings[name].home.root
    assert not list(work.rglob("checkpoint-*")), "not a step"
