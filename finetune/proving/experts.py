"""What an adapter of routed experts adds to a fused parameter, from the weights that the model holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from peft.tuners.lora import ParamWrapper
from torch import Tensor, nn

from finetune.lora import adapter_layers

# A layer's parameters, whose experts may lie in turn on disk.
_KEPT = 2


class FusedDeltas(Protocol):
    """What is added to fused parameters: those with a name, float32 [experts, out, in]."""

    @property
    def names(self) -> set[str]: ...

    def of(self, name: str) -> Tensor: ...


@dataclass
class ExpertDeltas:
    """By full name of a fused parameter its layer; the last deltas are kept, each of its parameter's size."""

    layers: dict[str, ParamWrapper]
    _last: dict[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Every fused parameter that the adapter changes."""
        return set(self.layers)

    def of(self, name: str) -> Tensor:
        """float32 [experts, out, in]: in each expert scale * B @ A, A and B as the model computes with them.

        PEFT's own `get_delta_weight` rounds to the parameter's dtype: this is that one before.
        """
        if name not in self._last:
            layer = self.layers[name]
            a, b = (
                held["default"].get_parameter("weight").detach().float().cpu()
                for held in (layer.lora_A, layer.lora_B)
            )
            a, b = experts_apart(a, b, layer.num_experts)
            if len(self._last) == _KEPT:
                del self._last[next(iter(self._last))]
            self._last[name] = experts_delta(a, b, layer.scaling["default"])
        return self._last[name]


def experts_apart(a: Tensor, b: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """PEFT's A [experts * rank, in] as [experts, rank, in], and its B [out, rank * experts] as
    [out, rank, experts]."""
    return a.reshape(experts, -1, a.shape[1]), rows_apart(b, experts)


def rows_apart(b: Tensor, experts: int) -> Tensor:
    """Rows of PEFT's B [rows, rank * experts] as [rows, rank, experts]."""
    return b.reshape(b.shape[0], -1, experts)


def experts_delta(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """[experts, out, in]: in each expert scale * B @ A, of `experts_apart`."""
    return torch.einsum("ore,eri->eoi", b, a) * scale


def expert_deltas(trained: nn.Module) -> ExpertDeltas:
    """Those of a model with its adapter unmerged; of none where no expert is adapted."""
    layers = adapter_layers(trained).items()
    return ExpertDeltas({name: layer for name, layer in layers if isinstance(layer, ParamWrapper)})
