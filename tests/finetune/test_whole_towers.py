"""A tower trained whole beside an adapter on a model without weights: what trains, in which dtype; and that a
PEFT which trains something else is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import finetune.adapter
from finetune.adapter import choose_trained
from finetune.features import may_keep
from finetune.launcher import read_launcher
from finetune.lora import lora_config
from finetune.model import load_skeleton
from lensmith.errors import IntegrityError
from lensmith.recipe import Recipe, load_recipe
from tests.conftest import RecipeMaker
from tests.finetune.test_distributed import WHOLE

COPY = ".modules_to_save.default."


@pytest.fixture
def recipe(make_recipe: RecipeMaker) -> Recipe:
    return load_recipe(make_recipe(**WHOLE))


@pytest.mark.parametrize("half", [False, True])
def test_a_copy_trains_in_the_adapters_dtype(tiny_base: Path, recipe: Recipe, half: bool) -> None:
    """The original stays beside it, as it is: of preferences it is the reference."""
    bare = load_skeleton(tiny_base, torch.bfloat16)
    trained = choose_trained(bare, recipe, half_adapter=half)
    named = dict(trained.model.named_parameters())
    whole = {name for name, each in named.items() if each.requires_grad and ".lora_" not in name}
    assert whole == {name for name in named if COPY in name}
    assert {named[name].dtype for name in named if named[name].requires_grad} == {
        torch.bfloat16 if half else torch.float32
    }
    originals = {name.replace(COPY, ".original_module.") for name in whole}
    assert {named[name].dtype for name in originals} == {torch.bfloat16}
    assert trained.parameters["connector"] == sum(named[name].numel() for name in originals)


def test_features_are_kept_where_both_towers_are_frozen(tiny_base: Path, make_recipe: RecipeMaker) -> None:
    """What a connector that learns makes of an image is another thing in every step."""

    def kept(connector: str) -> bool:
        towers = {"vision": "freeze", "connector": connector, "language": "adapt"}
        recipe = load_recipe(make_recipe(train__towers=towers, train__epochs=3, train__max_steps=0))
        launcher = read_launcher(recipe.train.launcher)
        return may_keep(recipe, launcher, load_skeleton(tiny_base), [0, 1])

    assert kept("freeze")
    assert not kept("train")


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (None, "model.visual.merger.norm: is not trained whole"),
        (["visual.merger.norm"], "model.visual.merger.linear_fc1: is not trained whole"),
        (["model.visual"], "visual.modules_to_save.default.blocks.0.attn.qkv.weight: is trained whole"),
    ],
)
def test_a_peft_that_trains_another_part_is_noticed(
    tiny_base: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, told: list[str] | None, found: str
) -> None:
    def other(*arguments: Any) -> Any:
        config = lora_config(*arguments)
        config.modules_to_save = told
        return config

    monkeypatch.setattr(finetune.adapter, "lora_config", other)
    with pytest.raises(IntegrityError) as error:
        choose_trained(load_skeleton(tiny_base), recipe)
    assert found in str(error.value)


def test_a_copy_that_is_frozen_is_noticed(
    tiny_base: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def freezing(model: Any, dtype: torch.dtype) -> None:
        name = next(name for name, _ in model.named_parameters() if COPY in name)
        model.get_parameter(name).requires_grad = False

    monkeypatch.setattr(finetune.adapter, "cast_copies", freezing)
    with pytest.raises(IntegrityError, match=r"modules_to_save\.default\.weight: is not trained"):
        choose_trained(load_skeleton(tiny_base), recipe)
