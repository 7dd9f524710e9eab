"""Adapted experts under ZeRO-3: two processes, which hold a part of each, learn what one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from deepspeed.utils import z3_leaf_module
from peft.tuners.lora import ParamWrapper
from safetensors.torch import load_file

import finetune.train
from data_prep.prepare import prepare
from finetune.arguments import training_arguments
from finetune.collate import EncodedRows
from finetune.encoder import row_encoder
from finetune.launch import train
from finetune.launcher import read_launcher
from finetune.run import run_key
from finetune.train import train_process
from lensmith.artifact import Artifact
from lensmith.base import pin_base
from lensmith.dataset import read_split
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.conftest import ROOT, recipe_content
from tests.families.conftest import Checkpoint
from tests.finetune.test_distributed import TOLERANCE, assert_same_weights, launcher


def write_recipe(
    checkpoint: Checkpoint, forms: Path, folder: Path, config: Path | None = None, **settings: Any
) -> Path:
    """LoRA on the checkpoint's language model and experts, by the launcher `config` where one is given."""
    folder.mkdir()
    content = recipe_content(checkpoint.root, forms)
    content["family"] = checkpoint.family.name
    content["train"] |= {
        "towers": {"vision": "freeze", "connector": "freeze", "language": "adapt"},
        "lora": {"rank": 4, "alpha": 8.0, "experts": {"rank": 3, "alpha": 6.0}},
        "max_length": 1024,
        "max_steps": 3,
        "learning_rate": 0.01,
        **settings,
    }
    if config is not None:
        content["train"]["launcher"] = str(config)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def trained(path: Path) -> Artifact:
    """The run of the recipe at `path`; what several processes train is launched."""
    recipe, home = load_recipe(path), Home(path.parent / "home")
    base, dataset = pin_base(recipe, home), prepare(recipe, home).dataset
    if read_launcher(recipe.train.launcher).processes > 1:
        return train(recipe, path, (), home, base, dataset)
    train_process(recipe, home, base, dataset)
    run = home.find("run", run_key(recipe, base, dataset))
    assert run is not None
    return run


def losses(run: Artifact) -> list[float]:
    return [json.loads(line)["loss"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(
    made: dict[str, Checkpoint], bank_forms: Path, tmp_path: Path
) -> None:
    checkpoint = made["qwen3_vl_moe"]
    content = yaml.safe_load((ROOT / "recipes/accelerate/deepspeed_zero3.yaml").read_text())
    config = launcher(tmp_path / "zero3.yaml", content | {"num_processes": 2, "use_cpu": True}, 3)
    one = trained(write_recipe(checkpoint, bank_forms, tmp_path / "one", batch_size=2))
    two = trained(write_recipe(checkpoint, bank_forms, tmp_path / "two", config, batch_size=1))
    assert two.record()["engine"]["zero_stage"] == 3
    assert two.record()["engine"]["experts"] == "grouped_mm"
    assert losses(two) == pytest.approx(losses(one), abs=TOLERANCE)
    assert_same_weights(two, one, "adapter_model.safetensors")
    assert any("experts" in name for name in load_file(two.path / "adapter_model.safetensors"))


@pytest.mark.slow
def test_a_trainer_under_zero3_gathers_a_layers_at_once(
    made: dict[str, Checkpoint], bank_forms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights as small as these are never divided, so that a training does not need it; larger ones do."""
    path = write_recipe(made["qwen3_vl_moe"], bank_forms, tmp_path / "recipe")
    recipe, home = load_recipe(path), Home(tmp_path / "home")
    rows = read_split(prepare(recipe, home).dataset, "train")
    arguments = training_arguments(recipe, read_launcher(recipe.train.launcher), tmp_path / "work")
    home.work_path("0" * 64).mkdir(parents=True)
    for stage in (2, 3):
        monkeypatch.setattr(finetune.train, "zero_stage", lambda _, stage=stage: stage)
        encoded = EncodedRows(rows, row_encoder(recipe, recipe.base.path))
        trainer, _ = finetune.train.make_trainer(
            recipe, "0" * 64, home, recipe.base.path, arguments, encoded, None
        )
        assert trainer.model is not None
        wrapped = [each for each in trainer.model.modules() if isinstance(each, ParamWrapper)]
        assert {z3_leaf_module(each) for each in wrapped} == {stage == 3}
