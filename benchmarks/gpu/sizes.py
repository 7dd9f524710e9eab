"""The numbers of the models that are trained, as their published config.json state them; no torch.

Qwen/Qwen3-VL-8B-Instruct, Qwen/Qwen3-VL-4B-Instruct and Qwen/Qwen3-VL-30B-A3B-Instruct. What is not named
here is transformers' default for their classes. `parameters` are those of the published weights: a size that
is copied wrongly does not add up to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_TEXT: dict[str, Any] = {
    "vocab_size": 151936,
    "num_attention_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5_000_000.0,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
_VISION: dict[str, Any] = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}


@dataclass(frozen=True)
class Size:
    """A model's numbers over those of its family's tiny one; a tiny one has none of its own."""

    family: str
    text: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)
    tied: bool = False
    parameters: int = 0


SIZES = {
    "qwen3_vl_8b": Size(
        "qwen3_vl",
        _TEXT
        | {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
        },
        _VISION | {"out_hidden_size": 4096},
        parameters=8_767_123_696,
    ),
    "qwen3_vl_4b": Size(
        "qwen3_vl",
        _TEXT
        | {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
        },
        _VISION
        | {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "deepstack_visual_indexes": [5, 11, 17],
            "out_hidden_size": 2560,
        },
        tied=True,
        parameters=4_437_815_808,
    ),
    "qwen3_vl_30b_a3b": Size(
        "qwen3_vl_moe",
        _TEXT
        | {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            # Published as num_experts; the class writes it so.
            "num_local_experts": 128,
            "num_experts_per_tok": 8,
        },
        _VISION | {"out_hidden_size": 2048},
        parameters=31_070_754_032,
    ),
}
# Of each family, for a CPU.
TINY = {family: Size(family) for family in ("qwen3_vl", "qwen3_vl_moe")}
