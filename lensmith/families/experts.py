"""Routed experts: weights fused over all experts of a layer, which are parameters and no linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# vLLM 0.32 (fused_moe/oracle/unquantized.py): with adapters on it takes Triton's experts whatever the device.
NO_ADAPTERS = {
    "cpu": "beside adapters vLLM computes routed experts by Triton's kernels alone, which its CPU engine"
    " lacks: it starts, and ends at the first question"
}


@dataclass(frozen=True)
class Experts:
    """What a family states of its routed experts.

    layers: the dotted path of the config's number of decoder layers. module: one layer's experts, `{}` being
    the layer. parameters: their names below it; each is [experts, out, in] in the class. router: the
    parameter that chooses among them, always frozen. chosen: the dotted path of how many answer for a token.
    Which layers have experts ("sparse") is said in one of these ways, paths being "" where a family has no
    such setting. first: layers before this one have none. step: only the last of every so many has. dense:
    the list of layers that have none. kinds: a list of "sparse" and "dense", one a layer.
    stored: on disk "transposed" is fused too, but [experts, in, out]; "apart" is one matrix for each expert
    and projection, `gate_up_proj` cut into gate_proj and up_proj.
    """

    layers: str
    module: str
    parameters: tuple[str, ...]
    router: str
    stored: Literal["transposed", "apart"]
    first: str = ""
    step: str = ""
    dense: str = ""
    kinds: str = ""
    chosen: str = "text_config.num_experts_per_tok"

    def sparse_layers(self, config: Mapping[str, Any]) -> list[int]:
        """The numbers of the decoder layers that have routed experts."""
        if self.kinds:
            return [at for at, kind in enumerate(value_at(config, self.kinds)) if kind == "sparse"]
        first = value_at(config, self.first) if self.first else 0
        step = value_at(config, self.step) if self.step else 1
        dense = value_at(config, self.dense) if self.dense else []
        return [
            layer
            for layer in range(first, value_at(config, self.layers))
            if (layer + 1) % step == 0 and layer not in dense
        ]

    def fused(self, config: Mapping[str, Any]) -> list[str]:
        """Full names of every fused parameter of a model with this config."""
        return [
            f"{self.module.format(layer)}.{name}"
            for layer in self.sparse_layers(config)
            for name in self.parameters
        ]

    def routers(self, config: Mapping[str, Any]) -> list[str]:
        """Full names of every router's parameter."""
        return [self.router.format(layer) for layer in self.sparse_layers(config)]


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path into a config."""
    value: Any = config
    for part in path.split("."):
        value = value[part]
    return value
