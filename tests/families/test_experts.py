"""LoRA on routed experts: from the recipe to every expert that trains, and to the tensors that are saved."""

from __future__ import annotations

import json
from pathlib import Path
from string import printable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import ParamWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import finetune.adapter
from finetune.adapted import load_trained
from finetune.adapter import choose_trained
from finetune.experts import check_experts, group_experts
from finetune.lora import adapter_layers, check_saved, lora_config
from finetune.model import load_skeleton
from finetune.peft_names import named_in_full
from lensmith import families
from lensmith.errors import InputError, IntegrityError
from lensmith.recipe import Recipe
from tests.families.conftest import Checkpoint, row_of
from tests.families.test_steps import batch_of, changed, logits, step, values
from tests.family_results import Shows

pytestmark = pytest.mark.slow

ROUTED = [name for name, family in families.FAMILIES.items() if family.experts is not None]
PREFIX = "base_model.model."
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(params=ROUTED)
def routed(request: pytest.FixtureRequest, made: dict[str, Checkpoint]) -> Checkpoint:
    """The checkpoint of each family with routed experts in turn."""
    return made[request.param]


def expert_recipe(checkpoint: Checkpoint, **lora: Any) -> Recipe:
    """LoRA of rank 4 on the language model, of rank 3 on its experts."""
    content = checkpoint.recipe("lora", language="adapt").model_dump()
    content["train"]["lora"] |= {"experts": {"rank": 3, "alpha": 6.0}} | lora
    return Recipe.model_validate(content)


def fused(checkpoint: Checkpoint) -> list[str]:
    assert checkpoint.family.experts is not None
    return checkpoint.family.experts.fused(checkpoint.config)


def expert_layers(model: nn.Module) -> dict[str, ParamWrapper]:
    layers = adapter_layers(model).items()
    return {name.removeprefix(PREFIX): each for name, each in layers if isinstance(each, ParamWrapper)}


def test_a_step_reaches_every_expert_and_no_router(routed: Checkpoint, tmp_path: Path, shows: Shows) -> None:
    shows(routed.family.name, "", "experts")
    recipe = expert_recipe(routed)
    linears = routed.family.expected_linears(routed.config, "language")
    trained = choose_trained(routed.load(), recipe)
    model = trained.model
    assert trained.adapted == {"language": len(linears), "experts": len(fused(routed))}
    # Many different tokens: an expert that none is sent to does not train.
    batch, before = batch_of(routed, recipe, row_of(printable.strip(), (200, 100))), values(model)
    untrained = logits(model, batch)
    assert 0 < step(model, batch) < 100
    # B starts at zero, so the first step leaves A as it is, and the second moves both.
    assert changed(before, model) == {name for name in before if ".lora_B." in name}
    first = values(model)
    step(model, batch)
    assert changed(first, model) == {name for name in before if ".lora_" in name}
    layers = expert_layers(model)
    assert set(layers) == set(fused(routed))
    for name, layer in layers.items():
        weight = layer.get_param()
        experts, out, into = weight.shape
        assert layer.lora_A["default"].weight.shape == (3 * experts, into), name
        assert layer.lora_B["default"].weight.shape == (out, 3 * experts), name
        delta = layer.get_delta_weight("default")
        assert delta.shape == weight.shape
        assert bool(delta.abs().amax(dim=(1, 2)).gt(0).all()), f"an expert of {name} did not train"
    assert routed.family.experts is not None
    routers = {PREFIX + name for name in routed.family.experts.routers(routed.config)}
    assert routers <= before.keys()
    assert not any(dict(model.named_parameters())[name].requires_grad for name in routers)
    learnt = logits(model, batch)
    assert not torch.allclose(untrained, learnt, atol=1e-4)

    model.save_pretrained(str(tmp_path))
    check_saved(tmp_path, choose_trained(load_skeleton(routed.root), recipe).model)
    stored = load_file(tmp_path / ADAPTER)
    assert len(stored) == 2 * (len(linears) + len(fused(routed)))
    assert sorted(json.loads((tmp_path / CONFIG).read_bytes())["target_parameters"]) == sorted(fused(routed))
    again = load_trained(routed.root, tmp_path, torch.float32)
    torch.testing.assert_close(learnt, logits(again, batch), rtol=1e-5, atol=1e-5)


def test_experts_stay_frozen_unless_the_recipe_adapts_them(routed: Checkpoint) -> None:
    model = choose_trained(load_skeleton(routed.root), routed.recipe("lora", language="adapt")).model
    assert expert_layers(model) == {}
    trains = dict(model.named_parameters())
    assert not any(trains[PREFIX + name].requires_grad for name in fused(routed))


@pytest.mark.parametrize(
    ("lora", "rank", "scale"),
    [
        ({}, 3, 2.0),
        ({"variant": "rslora"}, 3, 6 / 3**0.5),
        ({"experts": {}}, 4, 2.0),
        ({"experts": {}, "towers": {"language": {"rank": 2, "alpha": 9.0}}}, 2, 4.5),
    ],
)
def test_rank_and_alpha_reach_every_expert(
    routed: Checkpoint, lora: dict[str, Any], rank: int, scale: float
) -> None:
    model = choose_trained(load_skeleton(routed.root), expert_recipe(routed, **lora)).model
    layers = expert_layers(model)
    assert len(layers) == len(fused(routed))
    for layer in layers.values():
        assert layer.lora_A["default"].weight.shape[0] == rank * layer.num_experts
        assert layer.scaling["default"] == pytest.approx(scale)


@pytest.mark.parametrize(
    ("dropped", "error", "words"),
    [
        ("target_parameters", InputError, "linears carry an adapter"),
        ("rank_pattern", IntegrityError, "rank is 4.0, the recipe asks for 3"),
        ("alpha_pattern", IntegrityError, "the recipe asks for 2.0"),
    ],
)
def test_a_setting_that_does_not_reach_the_experts_is_noticed(
    made: dict[str, Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
    dropped: str,
    error: type[Exception],
    words: str,
) -> None:
    """The mutant: PEFT is never told."""

    def without(*arguments: Any) -> LoraConfig:
        config = lora_config(*arguments)
        setattr(config, dropped, None if dropped == "target_parameters" else {})
        return config

    monkeypatch.setattr(finetune.adapter, "lora_config", without)
    checkpoint = made["qwen3_vl_moe"]
    with pytest.raises(error, match=words):
        choose_trained(load_skeleton(checkpoint.root), expert_recipe(checkpoint))


def test_a_saved_adapter_without_its_experts_is_noticed(made: dict[str, Checkpoint], tmp_path: Path) -> None:
    checkpoint = made["glm4v_moe"]
    recipe = expert_recipe(checkpoint)
    choose_trained(checkpoint.load(), recipe).model.save_pretrained(str(tmp_path))
    shape = choose_trained(load_skeleton(checkpoint.root), recipe).model
    check_saved(tmp_path, shape)
    stored, config = load_file(tmp_path / ADAPTER), (tmp_path / CONFIG).read_text()
    routed = [name for name in stored if ".mlp.experts." in name]
    assert len(routed) == 4
    for name in routed:
        save_file({key: tensor for key, tensor in stored.items() if key != name}, tmp_path / ADAPTER)
        with pytest.raises(IntegrityError, match=r"experts\.(base_layer\.)?lora_"):
            check_saved(tmp_path, shape)
    save_file(stored, tmp_path / ADAPTER)
    (tmp_path / CONFIG).write_text(json.dumps(json.loads(config) | {"target_parameters": None}))
    with pytest.raises(IntegrityError, match="target_parameters are not those"):
        check_saved(tmp_path, shape)


@pytest.mark.parametrize(
    ("setting", "value"), [("lora_dropout", 0.1), ("use_dora", True), ("lora_bias", True)]
)
def test_peft_still_takes_no_more_than_plain_lora(
    made: dict[str, Checkpoint], setting: str, value: Any
) -> None:
    """Why recipes that ask for it are refused; once it passes, the refusal can go."""
    checkpoint = made["qwen3_vl_moe"]
    model = load_skeleton(checkpoint.root)
    config = LoraConfig(target_modules=[], target_parameters=fused(checkpoint))
    setattr(config, setting, value)
    with pytest.raises(ValueError, match="does not work with"), named_in_full(model):
        get_peft_model(model, config, low_cpu_mem_usage=True)


class GroupedProducts(TorchDispatchMode):
    """Counts torch's products of all experts of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._grouped_mm.default
        return func(*args, **(kwargs or {}))


def test_experts_run_in_one_product(routed: Checkpoint) -> None:
    """Whatever the model was set to; what runs otherwise is no run."""
    model, family = routed.load(), routed.family
    model.set_experts_implementation("eager")
    with pytest.raises(IntegrityError, match="eager ran, not grouped_mm"):
        check_experts(model, family)
    group_experts(model, family)
    assert check_experts(model, family) == {"experts": "grouped_mm"}
    with GroupedProducts() as products, torch.no_grad():
        logits(model, batch_of(routed, routed.recipe("lora", language="adapt")))
    assert products.count == len(fused(routed))
