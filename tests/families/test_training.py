"""From labelled forms to a sealed run: data is prepared, planned, shown and trained on for every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from data_prep.prepare import prepare
from finetune.plan import plan
from finetune.preview import preview
from finetune.run import run_key
from finetune.train import train_process
from lensmith.base import pin_base
from lensmith.families.family import TOWERS
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.conftest import recipe_content
from tests.families.conftest import Checkpoint, towers_of
from tests.family_results import Shows

pytestmark = pytest.mark.slow

# A class that takes pixels in its own dtype alone shows in another than theirs.
DTYPES = {"deepseek_ocr2": "bfloat16"}


def test_forms_become_a_run(checkpoint: Checkpoint, bank_forms: Path, tmp_path: Path, shows: Shows) -> None:
    name = checkpoint.family.name
    shows(name, "", "train")
    content = recipe_content(checkpoint.root, bank_forms)
    towers = {tower: "adapt" if tower in towers_of(name, "lora") else "freeze" for tower in TOWERS}
    content["family"] = name
    content["train"].update(towers=towers, max_length=1024, dtype=DTYPES.get(name, "float32"))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    recipe, home = load_recipe(tmp_path / "recipe.yaml"), Home(tmp_path / "home")
    base, dataset = pin_base(recipe, home), prepare(recipe, home).dataset

    planned = plan(recipe, dataset)
    assert planned.rows.image_tokens > 0
    assert set(planned.adapted) == set(towers_of(name, "lora"))
    assert planned.memory.activations > 0
    assert planned.experts == ("grouped_mm" if checkpoint.family.experts else None)

    shown = preview(recipe, base, dataset, 2)
    assert all(row.image_tokens > 0 for row in shown)
    assert all(bool(row.images) == (checkpoint.family.cut == "area") for row in shown)

    train_process(recipe, home, base, dataset)
    run = home.find("run", run_key(recipe, base, dataset))
    assert run is not None
    assert run.record()["engine"].get("experts") == planned.experts
    losses = [json.loads(line)["loss"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)
