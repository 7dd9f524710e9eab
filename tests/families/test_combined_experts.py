"""Adapters of routed experts are combined one by one, whether a checkpoint holds them fused or apart."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.proving import form
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.merge_settings import Merge
from tests.artifacts import make_held_out, make_run
from tests.families.conftest import Checkpoint
from tests.families.test_experts import ROUTED, expert_recipe
from tests.finetune.merged import as_bfloat16

pytestmark = pytest.mark.slow

PATTERN = {"experts.gate_up_proj": 3, "experts.down_proj": 2}


# Two families to one, one to the other: between them they hold experts fused, transposed and apart.
SETTINGS: tuple[dict[str, Any], ...] = (
    {"method": "ties", "density": 0.4},
    {"method": "dare_ties", "density": 0.5, "seed": 3},
)


@pytest.mark.parametrize("family", ROUTED)
def test_experts_are_combined_one_by_one(
    made: dict[str, Checkpoint],
    bank_forms: Path,
    tmp_path: Path,
    family: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second adapter leaves the experts as they are; the third has them with other ranks."""
    settings = SETTINGS[sorted(ROUTED).index(family) % len(SETTINGS)]
    shutil.copytree(made[family].root, tmp_path / "base")
    as_bfloat16(tmp_path / "base")
    recipe = expert_recipe(replace(made[family], root=tmp_path / "base"))
    home = Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run, *others = (
        make_run(home, base, ["language"], seed=seed, **more)
        for seed, more in enumerate(({"experts": True}, {}, {"experts": True, "rank_pattern": PATTERN}))
    )
    weights = zip(others, (0.5, -0.3), strict=True)
    adapters = [{"run": each.short, "weight": weight} for each, weight in weights]
    recipe = recipe.model_copy(
        update={"merge": Merge.model_validate({"weight": 0.7, "adapters": adapters} | settings)}
    )
    model = merge(recipe, home, base, run, others)
    held_out = make_held_out(home, bank_forms, 2)
    proof = prove_merge(recipe, home, base, run, model, held_out, others)
    assert proof.statement["findings"] == []
    found = proof.statement["weights"]
    assert found["bit_equal"] == found["tensors"]
    assert found["changed"] == found["merged"] > 0

    # One that could not be held: each expert by itself.
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    proof = prove_merge(recipe, home, base, run, model, held_out, others)
    assert proof.statement["findings"] == []
    found = proof.statement["weights"]
    assert found["bit_equal"] == found["sampled"] == found["changed"] > 0
