"""LoRA reaches exactly the linears that the family states; anything less is an error."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Glm4vConfig, Glm4vForConditionalGeneration, PreTrainedModel

from finetune.adapter import adapter_targets, check_adapted, choose_trained, count_trained
from finetune.model import load_model, load_skeleton
from lensmith import families
from lensmith.errors import InputError, IntegrityError
from lensmith.families.family import TOWERS, Family, Linears
from lensmith.recipe import Recipe, load_recipe
from tests.conftest import RecipeMaker
from tests.finetune.conftest import TrainingMaker


@pytest.fixture
def recipe(make_recipe: RecipeMaker) -> Recipe:
    return load_recipe(make_recipe())


def with_modes(make_recipe: RecipeMaker, method: str, vision: str, connector: str, language: str) -> Recipe:
    towers = {"vision": vision, "connector": connector, "language": language}
    return load_recipe(make_recipe(train__method=method, train__towers=towers))


def linears_with_adapter(model: nn.Module) -> set[str]:
    return {
        name.partition("base_model.model.")[2].removesuffix(".lora_A.default")
        for name, _ in model.named_modules()
        if name.endswith(".lora_A.default")
    }


def test_every_linear_of_an_adapted_tower_and_no_other(tiny_base: Path, recipe: Recipe) -> None:
    model = load_skeleton(tiny_base)
    every = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    trained = choose_trained(model, recipe)
    assert linears_with_adapter(trained.model) == every
    # SMALLEST: 2 vision blocks of 4, one merger and one deepstack merger of 2, 2 decoder layers of 7.
    assert trained.adapted == {"vision": 8, "connector": 4, "language": 14}


@pytest.mark.parametrize("tower", TOWERS)
def test_one_tower_alone(tiny_base: Path, make_recipe: RecipeMaker, tower: str) -> None:
    modes = {each: "adapt" if each == tower else "freeze" for each in TOWERS}
    recipe = load_recipe(make_recipe(train__towers=modes))
    trained = choose_trained(load_skeleton(tiny_base), recipe)
    assert {recipe.model_family.tower_of(name) for name in linears_with_adapter(trained.model)} == {tower}
    assert [each for each in TOWERS if trained.parameters[each]] == [tower]


def test_only_the_adapter_trains(tiny_base: Path, recipe: Recipe) -> None:
    model = load_model(tiny_base, torch.float32)
    trained = choose_trained(model, recipe)
    names = {name for name, parameter in trained.model.named_parameters() if parameter.requires_grad}
    assert names
    assert all(".lora_A." in name or ".lora_B." in name for name in names)


def test_counts_without_weights_equal_those_with(tiny_base: Path, recipe: Recipe) -> None:
    with_weights = choose_trained(load_model(tiny_base, torch.float32), recipe)
    without = choose_trained(load_skeleton(tiny_base), recipe)
    assert with_weights.parameters == without.parameters
    assert with_weights.adapted == without.adapted


@pytest.mark.parametrize("half", [True, False])
def test_dtypes_without_weights_equal_those_with(tiny_base: Path, recipe: Recipe, half: bool) -> None:
    """As the plan of a training under DeepSpeed and FSDP2 counts an adapter, and its products."""

    def dtypes(model: PreTrainedModel) -> dict[str, torch.dtype]:
        adapted = choose_trained(model, recipe, half_adapter=half).model
        return {name: each.dtype for name, each in adapted.named_parameters()}

    found = dtypes(load_skeleton(tiny_base, torch.bfloat16))
    assert found == dtypes(load_model(tiny_base, torch.bfloat16))
    adapter = torch.bfloat16 if half else torch.float32
    assert {each for name, each in found.items() if ".lora_" in name} == {adapter}


def changed(family: Family, tower: str, change: Any) -> Family:
    linears = tuple(
        dataclasses.replace(group, names=change(group)) if group.tower == tower else group
        for group in family.linears
    )
    return dataclasses.replace(family, linears=linears)


def misspelt(group: Linears) -> tuple[str, ...]:
    return (group.names[0] + "x", *group.names[1:])


def fewer(group: Linears) -> tuple[str, ...]:
    return group.names[1:]


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize(
    ("change", "expected"), [(misspelt, "match no linear"), (fewer, "the family does not state")]
)
def test_wrong_family_facts_are_refused(
    tiny_base: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tower: str, change: Any, expected: str
) -> None:
    monkeypatch.setitem(families.FAMILIES, "qwen3_vl", changed(recipe.model_family, tower, change))
    with pytest.raises(InputError) as error:
        choose_trained(load_skeleton(tiny_base), recipe)
    assert expected in str(error.value)
    assert tower in str(error.value)


@pytest.mark.parametrize("pattern", [["q_proj"], r".*language_model.*\.(q_proj|k_proj)"])
def test_a_wrapped_model_with_fewer_adapters_is_refused(
    tiny_base: Path, recipe: Recipe, pattern: list[str] | str
) -> None:
    model = load_skeleton(tiny_base)
    targets = adapter_targets(model, recipe)
    wrapped = get_peft_model(model, LoraConfig(target_modules=pattern), low_cpu_mem_usage=True)
    with pytest.raises(InputError, match="carry an adapter"):
        check_adapted(wrapped, targets)


def test_a_model_without_any_adapter_is_refused(tiny_base: Path) -> None:
    with pytest.raises(InputError, match="0 linears carry an adapter"):
        check_adapted(load_skeleton(tiny_base), {})


def test_full_trains_whole_towers_and_freezes_the_rest(tiny_base: Path, make_recipe: RecipeMaker) -> None:
    recipe = with_modes(make_recipe, "full", "freeze", "train", "train")
    trained = choose_trained(load_skeleton(tiny_base), recipe)
    for name, parameter in trained.model.named_parameters():
        assert parameter.requires_grad == (recipe.model_family.tower_of(name) != "vision")
    assert trained.parameters["vision"] == 0
    assert sum(trained.parameters.values()) == sum(
        parameter.numel() for parameter in trained.model.parameters() if parameter.requires_grad
    )


def tiny_glm() -> PreTrainedModel:
    config = Glm4vConfig(
        text_config={
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 64,
        },
    )
    with torch.device("meta"):
        return Glm4vForConditionalGeneration(config)


def test_glm_facts_fit_its_real_class(make_recipe: RecipeMaker) -> None:
    model = tiny_glm()
    recipe = load_recipe(make_recipe(family="glm4v"))
    every = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    trained = choose_trained(model, recipe)
    assert linears_with_adapter(trained.model) == every
    assert trained.adapted == {"vision": 3 * 5, "connector": 4, "language": 2 * 6}
    assert all(count_trained(trained.model, recipe.model_family).values())


def test_a_checkpoint_that_lacks_a_weight_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_base, tmp_path / "base")
    weights = load_file(tiny_base / "model.safetensors")
    del weights["model.visual.merger.linear_fc1.weight"]
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(IntegrityError, match=r"merger\.linear_fc1\.weight"):
        load_model(tmp_path / "base", torch.float32)


def test_adapter_starts_the_same_for_a_seed(new_training: TrainingMaker) -> None:
    from transformers import set_seed

    training = new_training()
    base = training.recipe.base.path
    first: list[torch.Tensor] = []
    for _ in range(2):
        model = load_model(base, torch.float32)
        set_seed(training.recipe.train.seed)
        adapted = choose_trained(model, training.recipe).model
        first.append(next(p for name, p in adapted.named_parameters() if ".lora_A." in name).detach())
    assert torch.equal(first[0], first[1])
