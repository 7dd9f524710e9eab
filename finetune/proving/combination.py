"""What several adapters, combined by weights, make of each weight of the class: from PEFT's own layers, a
whole matrix at a time, by none of the code that merges. The definitions are in `finetune.combination`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.adapted import load_adapter_alone
from finetune.combination import Combination
from finetune.model import load_model
from finetune.proving.experts import ExpertDeltas, expert_deltas
from finetune.proving.weights import Definition, adapter_change
from lensmith.merge_settings import DRAWN

# Gives an adapter's change of a weight, float32, of the base's weight in float32.
Change = Callable[[Tensor], Tensor]


@dataclass
class CombinedExperts:
    """The combined changes of fused parameters; the last is kept."""

    adapters: Sequence[ExpertDeltas]
    combination: Combination
    _last: dict[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Every fused parameter that one of the adapters changes."""
        return {name for each in self.adapters for name in each.names}

    def of(self, name: str) -> Tensor:
        """float32 [experts, out, in]: each expert's matrix combined by itself."""
        if name not in self._last:
            held = {n: each.of(name) for n, each in enumerate(self.adapters) if name in each.names}
            count = len(next(iter(held.values())))
            self._last = {
                name: torch.stack(
                    [
                        combined({n: whole[e] for n, whole in held.items()}, self.combination, name, e)
                        for e in range(count)
                    ]
                )
            }
        return self._last[name]


@dataclass(frozen=True)
class Combined:
    """adapters: each on a model without weights. definition: by weight of the class. experts: of fused."""

    adapters: Sequence[PreTrainedModel]
    definition: Definition
    experts: CombinedExperts


def read_combined(base: Path, adapters: Sequence[Path], combination: Combination) -> Combined:
    """The definition of `adapters` on the checkpoint in `base`.

    Raises IntegrityError where PEFT does not load one whole.
    """
    models = [load_adapter_alone(base, each) for each in adapters]
    fused = CombinedExperts([expert_deltas(each) for each in models], combination)
    changes: dict[str, dict[int, Change]] = {}
    for number, model in enumerate(models):
        for name, change in adapter_change(model).items():
            changes.setdefault(name, {})[number] = change
    definition: Definition = {name: _merged(name, each, combination) for name, each in changes.items()}
    definition |= {name: _with_experts(name, fused) for name in fused.names}
    return Combined(models, definition, fused)


def load_combined(
    base: Path, adapters: Sequence[Path], combination: Combination, dtype: torch.dtype
) -> PreTrainedModel:
    """The base's model in `dtype` with each weight as `adapters` combined make it, rounded once; never the
    merged checkpoint."""
    return with_combined(load_model(base, dtype), read_combined(base, adapters, combination).definition)


def with_combined(model: PreTrainedModel, definition: Definition) -> PreTrainedModel:
    """The base's `model`, its weights set to what `definition` makes of them, in evaluation mode."""
    held = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in definition.items():
            held[name].copy_(value(held[name].detach()))
    return model.eval()


def _merged(name: str, changes: dict[int, Change], combination: Combination) -> Callable[[Tensor], Tensor]:
    def value(base: Tensor) -> Tensor:
        start = base.float()
        held = {number: change(start) for number, change in changes.items()}
        return (start + combined(held, combination, name, None)).to(base.dtype)

    return value


def _with_experts(name: str, fused: CombinedExperts) -> Callable[[Tensor], Tensor]:
    return lambda base: (base.float() + fused.of(name)).to(base.dtype)


def combined(changes: dict[int, Tensor], combination: Combination, weight: str, expert: int | None) -> Tensor:
    """One matrix of the changes [out, in] of the adapters with these numbers, float32."""
    stay = {n: _staying(each, n, combination, weight, expert) for n, each in changes.items()}
    return outcome(changes, stay, combination)


def _staying(
    change: Tensor, number: int, combination: Combination, weight: str, expert: int | None
) -> Tensor | None:
    """bool [out, in]: which elements of a matrix of an adapter's change stay, None where all do."""
    if combination.density is None:
        return None
    if combination.method in DRAWN:
        source = drawing(combination.seed, number, weight, expert)
        return drawn_below(source, (change.shape[0], change.shape[1]), combination.density)
    return _largest(change, combination.density)


def outcome(
    changes: Mapping[int, Tensor], stay: Mapping[int, Tensor | None], combination: Combination
) -> Tensor:
    """What rows of `changes` [rows, in] are combined to, of which those elements stay that `stay` says."""
    numbers = sorted(changes)
    scale = combination.density if combination.method in DRAWN else None
    stacked = torch.stack([_thinned(changes[number], stay[number], scale) for number in numbers])
    weights = torch.tensor([combination.weights[number] for number in numbers])
    weighted = stacked * weights.view(-1, 1, 1)
    if combination.method in ("linear", "dare_linear"):
        return _summed(weighted)
    sign = torch.where(_summed(stacked) < 0, -1.0, 1.0)
    agreeing = torch.sign(stacked) == sign
    return _summed(weighted * agreeing) / agreeing.sum(0).clamp(min=1)


def _thinned(change: Tensor, stay: Tensor | None, density: float | None) -> Tensor:
    if stay is None:
        return change
    return change * stay if density is None else change * stay / density


def _summed(stacked: Tensor) -> Tensor:
    """In their order: torch's own sum may add more than four in another."""
    total = torch.zeros_like(stacked[0])
    for each in stacked:
        total = total + each
    return total


def _largest(change: Tensor, density: float) -> Tensor:
    count = int(density * change.numel())
    if count == 0:
        return torch.zeros_like(change, dtype=torch.bool)
    sizes = change.abs()
    return sizes >= sizes.flatten().kthvalue(change.numel() - count + 1).values


def drawing(seed: int | None, number: int, weight: str, expert: int | None) -> np.random.Generator:
    """What the elements of an adapter's change of a matrix are drawn by, in the order of their rows."""
    text = json.dumps([seed, number, weight, expert])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def drawn_below(source: np.random.Generator, shape: tuple[int, int], density: float) -> Tensor:
    """bool [rows, in]: which of the next rows' elements stay."""
    words = source.integers(0, 2**32, size=shape, dtype=np.uint32)
    return torch.from_numpy(words < np.uint32(min(round(density * 2**32), 2**32 - 1)))
