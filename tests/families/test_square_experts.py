"""Experts that are square, whose shape does not say which way round they lie on disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_families import MAKERS
from tiny_families.checkpoint import make_model
from transformers import PreTrainedModel

from finetune.adapter import choose_trained
from finetune.layout import published
from finetune.merge import merge
from finetune.model import load_model
from finetune.peft_names import named_in_full
from lensmith.base import pin_base
from lensmith.errors import InputError
from lensmith.home import Home
from tests.families.conftest import Checkpoint
from tests.families.test_expert_merging import WEIGHTS, same_bits
from tests.families.test_experts import expert_recipe

pytestmark = pytest.mark.slow


def square(made: dict[str, Checkpoint], root: Path) -> tuple[PreTrainedModel, Path]:
    """A Qwen3-VL MoE whose fused gate and up are as wide as the model, in memory and as published."""
    checkpoint = made["qwen3_vl_moe"]
    config = MAKERS["qwen3_vl_moe"].config(checkpoint.processor)
    config.text_config.moe_intermediate_size = config.text_config.hidden_size // 2
    model = make_model(MAKERS["qwen3_vl_moe"], config, 0)
    shutil.copytree(checkpoint.root, root)
    stored = published(model.state_dict(), checkpoint.family, config.to_dict())
    save_file(stored, root / WEIGHTS, metadata={"format": "pt"})
    (root / "config.json").write_text(
        json.dumps(model.config.to_dict() | {"architectures": [type(model).__name__]})
    )
    return model, root


def test_square_experts_are_merged_by_what_the_family_states(
    made: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """Their shape says nothing; what is on disk is turned all the same."""
    model, root = square(made, tmp_path / "base")
    checkpoint = replace(made["qwen3_vl_moe"], root=root)
    family = checkpoint.family
    assert family.experts is not None
    fused = family.experts.fused(model.config.to_dict())
    parameters = dict(model.named_parameters())
    assert {parameters[name].shape for name in fused if "gate_up" in name} == {(4, 64, 64)}
    home, recipe = Home(tmp_path / "home"), expert_recipe(checkpoint)
    base = pin_base(recipe, home)
    with named_in_full(model):
        wrapped = get_peft_model(model, LoraConfig(r=3, target_modules=[], target_parameters=fused))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, each in wrapped.named_parameters():
            if ".lora_" in name:
                each.copy_(torch.randn(each.shape, generator=draw) * 0.1)
    with home.create("run", "a" * 24, {"base": base}) as draft:
        wrapped.save_pretrained(str(draft.path))
        draft.body.update(method="lora")
    merged = load_file(merge(recipe, home, base, draft.artifact).path / WEIGHTS)
    expected = published(
        wrapped.merge_and_unload(safe_merge=False).state_dict(), family, model.config.to_dict()
    )
    assert same_bits(merged, expected) == []


def test_square_experts_are_not_trained(made: dict[str, Checkpoint], tmp_path: Path) -> None:
    """transformers goes by the shape: what it loads is not what is published."""
    model, root = square(made, tmp_path / "base")
    loaded = dict(load_model(root, torch.float32).named_parameters())
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    assert loaded[name].equal(dict(model.named_parameters())[name].transpose(1, 2))
    checkpoint = replace(made["qwen3_vl_moe"], root=root)
    for recipe in (expert_recipe(checkpoint), checkpoint.recipe("full", language="train")):
        with pytest.raises(InputError, match=r"experts\.gate_up_proj: is square"):
            choose_trained(model, recipe)
