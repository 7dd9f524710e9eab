"""LoRA's products in another layout: values and every gradient equal PEFT's; other kinds stay its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

import finetune.trainer
from finetune import thin
from finetune.thin import multiply_thin
from tests.finetune.conftest import TrainingMaker

STATES = torch.randn(2, 40, 24, generator=torch.Generator().manual_seed(2))


class Pair(nn.Module):
    """Two linears on the same states, one with a bias, and one behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(24, 20)
        self.second = nn.Linear(24, 20, bias=False)
        self.last = nn.Linear(20, 24, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        return self.last(self.first(states) * self.second(states))


def adapted(**settings: Any) -> PeftModel:
    """Its adapter does something from the start."""
    torch.manual_seed(3)
    asked = {"r": 8, "lora_alpha": 12, "target_modules": ["first", "second", "last"], **settings}
    model = get_peft_model(Pair(), LoraConfig(**asked))
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "lora_B" in name:
                each.normal_()
    assert isinstance(model, PeftModel)
    return model.train()


def learned(model: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What it makes of STATES, and the gradients of these and of all that is trained."""
    torch.manual_seed(4)
    states = STATES.to(dtype, copy=True).requires_grad_()
    given = model(states)
    (given.float() ** 2).mean().backward()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert states.grad is not None
    return {**found, "given": given.detach(), "states": states.grad}


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each linear that is computed our way."""
    seen: list[int] = []
    apply: Callable[..., Tensor] = thin._Adapted.apply

    def counted(*given: Any) -> Tensor:
        seen.append(1)
        return apply(*given)

    monkeypatch.setattr(thin._Adapted, "apply", counted)
    return seen


@pytest.mark.parametrize("rank", [1, 8, 16, 32])
def test_what_peft_computes(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(r=rank)
    theirs = learned(copy.deepcopy(model))
    assert multiply_thin(model) == 3
    seen = calls(monkeypatch)
    ours = learned(model)
    assert len(seen) == 3
    # lora_A and lora_B of three linears.
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6 + 2
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max())), name


def test_states_that_need_no_gradient() -> None:
    model = adapted()
    theirs = copy.deepcopy(model)
    multiply_thin(model)
    for each in (model, theirs):
        each(STATES).sum().backward()
    ours, wanted = (
        {name: each.grad for name, each in some.named_parameters() if each.grad is not None}
        for some in (model, theirs)
    )
    assert ours.keys() == wanted.keys()
    assert all(torch.allclose(ours[name], each, rtol=1e-4, atol=1e-4) for name, each in wanted.items())


def test_what_is_switched_off_or_merged_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    with_it, without = model(STATES), model.get_base_model()
    multiply_thin(model)
    seen = calls(monkeypatch)
    with model.disable_adapter():
        bare = model(STATES)
    assert not torch.allclose(bare, with_it, atol=1e-3)
    model.merge_adapter()
    assert torch.allclose(without(STATES), with_it, atol=1e-4)
    assert not seen


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}])
def test_other_kinds_stay_pefts(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    theirs = learned(copy.deepcopy(model))
    assert multiply_thin(model) == 0
    ours = learned(model)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_base_that_is_trained_stays_pefts() -> None:
    model = adapted()
    trained = "base_model.model.first.base_layer.bias"
    model.get_parameter(trained).requires_grad = True
    assert multiply_thin(model) == 2
    assert trained in learned(model)


def test_bfloat16_and_autocast_stay_pefts(monkeypatch: pytest.MonkeyPatch) -> None:
    half, mixed = adapted().to(torch.bfloat16), adapted()
    seen = calls(monkeypatch)
    for model in (half, mixed):
        theirs = copy.deepcopy(model)
        multiply_thin(model)
        dtype = torch.bfloat16 if model is half else torch.float32
        with torch.autocast("cpu", torch.bfloat16, enabled=model is mixed):
            ours, wanted = learned(model, dtype), learned(theirs, dtype)
        assert all(torch.equal(ours[name], value) for name, value in wanted.items())
    assert not seen


@pytest.mark.slow
def test_a_training_computes_so(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass of it; what is learned is what PEFT's own layers learn."""
    settings: dict[str, Any] = {"train__max_steps": 3, "train__lora": {"rank": 16, "alpha": 32.0}}
    with monkeypatch.context() as patch:
        seen = calls(patch)
        ours = new_training(**settings).losses()
    # SMALLEST has 26 linears with an adapter (test_adapter.py), a pass a step.
    assert len(seen) >= 3 * 26
    monkeypatch.setattr(finetune.trainer, "multiply_thin", lambda model, product: 0)
    assert ours == pytest.approx(new_training(**settings).losses(), abs=1e-6)
