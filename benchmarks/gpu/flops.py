"""The floating-point operations that rows need, counted from a model's weights: what an MFU is a share of.

Forward, a weight that a token meets costs two (a product and a sum): 2N a token. Backward, as much again for
the gradient of what came in, and as much again for the weight's own: 4N a token where weights are adapted,
6N where they are trained, 2N where all is frozen (Kaplan et al. 2020, arXiv:2001.08361, section 2.1, states
6N; an adapter's own products are left out). N is of the weights that a token really meets: patches those of
the vision tower, image tokens the connector's, all tokens the decoder's (of routed experts those that
answer), and tokens that teach the output head's. Embeddings are looked up and count nothing.

`attention` is told apart, and in `mfu_with_attention` added: 4 times the length times the width of all heads,
a token and layer, forward, and twice that backward (Chowdhery et al. 2022, arXiv:2204.02311, appendix B: not
halved where it is causal), of each image and row alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from lensmith.families.experts import value_at
from lensmith.families.family import Family, Tower

Part = Literal["vision", "connector", "language", "head"]
Mode = Literal["freeze", "adapt", "train"]
# Times the operations of a forward pass.
PASSES: dict[Mode, int] = {"freeze": 1, "adapt": 2, "train": 3}
PATCHES_A_TOKEN = 4


@dataclass(frozen=True)
class Cost:
    """What a row has of tokens: in all, of each of its images, and that teach."""

    tokens: int
    images: tuple[int, ...]
    answers: int


@dataclass(frozen=True)
class Flops:
    """Of rows, the operations with weights, and those of attention beside them."""

    weights: int
    attention: int


class Counter:
    """Counts for one model, which may lie on the meta device."""

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        config: dict[str, Any] = model.config.to_dict()
        self.weights: dict[Part, int] = {"vision": 0, "connector": 0, "language": 0, "head": 0}
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                part: Part = family.tower_of(name) if "." in name else "head"
                self.weights[part] += module.get_parameter("weight").numel()
        if family.experts is not None:
            for name in family.experts.fused(config):
                expert = math.prod(model.get_parameter(name).shape[1:])
                self.weights["language"] += expert * value_at(config, family.experts.chosen)
            self.weights["language"] += sum(
                model.get_parameter(name).numel() for name in family.experts.routers(config)
            )
        text, vision = config["text_config"], config["vision_config"]
        heads = text["num_attention_heads"] * text["head_dim"]
        self.text_width = text["num_hidden_layers"] * heads
        self.vision_width = vision["depth"] * vision["hidden_size"]

    def forward(self, rows: Sequence[Cost]) -> dict[Part, Flops]:
        """Of one forward pass over rows that see themselves alone, by the part that computes it."""
        images = [image for row in rows for image in row.images]
        patches = [image * PATCHES_A_TOKEN for image in images]
        met: dict[Part, int] = {
            "vision": sum(patches),
            "connector": sum(images),
            "language": sum(row.tokens for row in rows),
            "head": sum(row.answers for row in rows),
        }
        squares = {
            "vision": sum(each**2 for each in patches) * self.vision_width,
            "language": sum(row.tokens**2 for row in rows) * self.text_width,
        }
        return {
            part: Flops(2 * weights * met[part], 4 * squares.get(part, 0))
            for part, weights in self.weights.items()
        }

    def step(self, rows: Sequence[Cost], modes: dict[Tower, Mode]) -> Flops:
        """Forward and backward over the rows, the towers in their modes; the head is in the language's."""
        weights = attention = 0
        for part, each in self.forward(rows).items():
            mode = modes["language" if part == "head" else part]
            weights += each.weights * PASSES[mode]
            attention += each.attention * (1 if mode == "freeze" else 3)
        return Flops(weights, attention)
