"""A tiny Qwen3-VL with four experts, two for each token; processor and vision tower of the dense one."""

from typing import Any

from tiny_base.checkpoint import SMALLEST, make_config, make_processor
from transformers import (
    PreTrainedConfig,
    ProcessorMixin,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)

from tiny_families.checkpoint import Tiny
from tiny_families.qwen3_vl import ENDS

# Twice as wide as the hidden size is not square either, once gate and up are fused.
EXPERT_WIDTH = 96


def _config(processor: ProcessorMixin) -> PreTrainedConfig:
    assert isinstance(processor, Qwen3VLProcessor)
    dense = make_config(SMALLEST, processor).to_dict()
    text: dict[str, Any] = dense["text_config"] | {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": EXPERT_WIDTH,
        # The published checkpoints state it; vLLM reads it, transformers always normalises.
        "norm_topk_prob": True,
        "model_type": "qwen3_vl_moe_text",
    }
    return Qwen3VLMoeConfig(
        text_config=text,
        vision_config=dense["vision_config"] | {"model_type": "qwen3_vl_moe_vision"},
        **{name: dense[name] for name in dense if name.endswith("_token_id")},
        tie_word_embeddings=False,
        dtype="float32",
    )


TINY = Tiny(make_processor, _config, Qwen3VLMoeForConditionalGeneration, ENDS)
