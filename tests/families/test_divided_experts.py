"""Adapted experts under ZeRO-3 are gathered whole. What two processes learn: tests/finetune/test_zero.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from deepspeed.utils import z3_leaf_module
from peft.tuners.lora import ParamWrapper

import finetune.train
from data_prep.prepare import prepare
from finetune.arguments import training_arguments
from finetune.collate import EncodedRows
from finetune.encoder import row_encoder
from finetune.launcher import read_launcher
from lensmith.dataset import read_split
from lensmith.home import Home
from lensmith.recipe import Recipe
from tests.conftest import recipe_content
from tests.families.conftest import Checkpoint


@pytest.mark.slow
def test_a_trainer_under_zero3_gathers_a_layers_at_once(
    made: dict[str, Checkpoint], bank_forms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights as small as these are never divided, so that a training does not need it; larger ones do."""
    checkpoint = made["qwen3_vl_moe"]
    content = recipe_content(checkpoint.root, bank_forms)
    content["family"] = checkpoint.family.name
    content["train"] |= {
        "towers": {"vision": "freeze", "connector": "freeze", "language": "adapt"},
        "lora": {"rank": 4, "alpha": 8.0, "experts": {"rank": 3, "alpha": 6.0}},
        "max_length": 1024,
    }
    recipe, home = Recipe.model_validate(content), Home(tmp_path / "home")
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
