"""oneDNN's products of frozen weights: the same values and gradients to rounding, nothing else touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import finetune.trainer
from finetune import onednn
from finetune.onednn import multiply_frozen, product
from finetune.thin import multiply_thin
from lensmith.errors import InputError
from tests.finetune.conftest import TrainingMaker
from tests.finetune.test_thin import adapted, learned


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(6))


def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each of oneDNN's."""
    seen: list[int] = []

    def counted(*given: Any) -> Tensor:
        seen.append(1)
        return product(*given)

    monkeypatch.setattr(onednn, "product", counted)
    return seen


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(
        torch.allclose(ours[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))
        for name, value in theirs.items()
    )


@pytest.mark.parametrize("shape", [(1, 7, 320), (50, 320), (2, 3, 5, 320)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_to_rounding(shape: tuple[int, ...], bias: bool) -> None:
    """Also of states and weights that lie transposed, and of a gradient that is one number everywhere."""
    linear = nn.Linear(320, 48, bias=bias).requires_grad_(requires_grad=False)
    theirs = copy.deepcopy(linear)
    assert multiply_frozen(linear) == 1
    for states in (noise(*shape), noise(*shape[:-2], 320, shape[-2]).transpose(-1, -2)):
        found: list[Tensor] = []
        for each in (linear, theirs):
            given = states.clone(memory_format=torch.preserve_format).requires_grad_()
            (each(given).sin().sum() + each(given).sum()).backward()
            assert given.grad is not None
            found += [each(given).detach(), given.grad]
        assert torch.allclose(found[0], found[2], atol=1e-4)
        assert torch.allclose(found[1], found[3], atol=1e-4)
    weight = noise(320, 48).t()
    assert torch.allclose(product(noise(9, 320), weight), functional.linear(noise(9, 320), weight), atol=1e-4)


def test_what_is_trained_or_not_float32_stays_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, half = nn.Linear(8, 8), nn.Linear(8, 8, dtype=torch.bfloat16).requires_grad_(requires_grad=False)
    bias = nn.Linear(8, 8)
    bias.weight.requires_grad = False
    assert multiply_frozen(nn.ModuleList([trained, half, bias])) == 0
    frozen = nn.Linear(8, 8).requires_grad_(requires_grad=False)
    theirs = copy.deepcopy(frozen)
    assert multiply_frozen(frozen) == 1
    seen = products(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen(noise(3, 8)), theirs(noise(3, 8)))
    assert not seen
    frozen(noise(3, 8))
    assert seen


def test_beside_an_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """In PEFT's layers, where dropout keeps these, and in ours."""
    dropped = adapted(lora_dropout=0.5)
    theirs = copy.deepcopy(dropped)
    seen = products(monkeypatch)
    assert multiply_frozen(dropped) == 3
    assert close(learned(dropped), learned(theirs))
    # Forward and backward of three linears.
    assert len(seen) == 6
    model = adapted()
    theirs = copy.deepcopy(model)
    multiply_thin(model, onednn.product)
    assert close(learned(model), learned(theirs))
    assert len(seen) == 12


def test_a_torch_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(InputError, match="this torch has no oneDNN") as raised:
        multiply_frozen(nn.Linear(8, 8))
    assert "train.cpu_products" in str(raised.value)


@pytest.mark.slow
def test_a_recipe_asks_for_it(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run under the same key; unless asked for, nothing of it is computed."""
    frozen = {"vision": "freeze", "connector": "freeze", "language": "adapt"}
    settings: dict[str, Any] = {"train__max_steps": 3, "train__towers": frozen}
    seen = products(monkeypatch)
    monkeypatch.setattr(finetune.trainer, "product", onednn.product)
    plain = new_training(**settings)
    losses = plain.losses()
    assert not seen
    asked = new_training(**settings, train__cpu_products="onednn")
    assert asked.losses() == pytest.approx(losses, abs=1e-5)
    # SMALLEST: 14 linears with an adapter, forward and backward, and the output head; the towers' once.
    assert len(seen) > 3 * 2 * 15
    assert asked.run().manifest.key == plain.run().manifest.key
