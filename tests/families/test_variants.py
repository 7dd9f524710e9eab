"""rsLoRA and DoRA of every tower: one step trains its linears alone; DoRA of all is merged and proven."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from finetune.adapted import load_trained
from finetune.adapter import choose_trained
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from lensmith.base import pin_base
from lensmith.families.family import Tower
from lensmith.home import Home
from lensmith.recipe import Recipe
from tests.artifacts import make_held_out, make_run
from tests.families.conftest import Checkpoint, towers_of
from tests.families.test_steps import LORA, batch_of, changed, logits, step, values
from tests.family_results import Shows

pytestmark = pytest.mark.slow

# By variant what the first step moves, B being zero before it, and the scale of rank 4 with alpha 8.
MOVED = {"rslora": (".lora_B.",), "dora": (".lora_B.", ".lora_magnitude_vector.")}
SCALE = {"rslora": 8 / 4**0.5, "dora": 8 / 4}


def with_variant(checkpoint: Checkpoint, variant: str, *towers: Tower) -> Recipe:
    content = checkpoint.recipe("lora", **dict.fromkeys(towers, "adapt")).model_dump()
    content["train"]["lora"]["variant"] = variant
    return Recipe.model_validate(content)


@pytest.mark.parametrize("variant", MOVED)
@pytest.mark.parametrize(("family", "tower"), LORA)
def test_a_variant_changes_one_tower(
    made: dict[str, Checkpoint], family: str, tower: Tower, variant: str, tmp_path: Path, shows: Shows
) -> None:
    shows(family, tower, variant)
    checkpoint = made[family]
    recipe = with_variant(checkpoint, variant, tower)
    model = choose_trained(checkpoint.load(), recipe).model
    linears = [each for each in model.modules() if isinstance(each, LoraLayer)]
    assert len(linears) == len(checkpoint.family.expected_linears(checkpoint.config, tower))
    assert {each.scaling["default"] for each in linears} == {SCALE[variant]}
    batch, before = batch_of(checkpoint, recipe), values(model)
    assert 0 < step(model, batch) < 100
    moved = changed(before, model)
    assert moved == {name for name in before if any(part in name for part in MOVED[variant])}
    assert {checkpoint.family.tower_of(name.removeprefix("base_model.model.")) for name in moved} == {tower}

    model.save_pretrained(tmp_path)
    again = load_trained(checkpoint.root, tmp_path, torch.float32)
    torch.testing.assert_close(logits(model, batch), logits(again, batch), rtol=1e-5, atol=1e-5)


def test_dora_is_merged_and_proven(
    checkpoint: Checkpoint, bank_forms: Path, tmp_path: Path, shows: Shows
) -> None:
    name = checkpoint.family.name
    shows(name, "", "merge dora")
    towers = towers_of(name, "lora")
    recipe, home = with_variant(checkpoint, "dora", *towers), Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, towers, dora=True)
    model = merge(recipe, home, base, run)
    proof = prove_merge(recipe, home, base, run, model, make_held_out(home, bank_forms, 2))
    assert proof.statement["findings"] == []
    assert proof.statement["adapter"]["modules"] == sum(run.body["modules"].values())
    assert proof.statement["logits"]["max_abs_difference"] > 0
