"""Models of the real classes and rows made of numbers, for tests that need no processor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from finetune.encoded import IGNORED, Encoded

Config = TypeVar("Config", bound=PreTrainedConfig)
VOCABULARY = 97
_IMAGE, _START, _END = 90, 91, 92
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}


def qwen3_vl(tied: bool = False) -> PreTrainedModel:
    """Qwen3-VL with deep features in its first layer."""
    return _random(Qwen3VLForConditionalGeneration(_qwen(Qwen3VLConfig, tied)))


def qwen3_vl_moe(tied: bool = False) -> PreTrainedModel:
    """The same with four experts, of which two answer for a token."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    return _random(Qwen3VLMoeForConditionalGeneration(_qwen(Qwen3VLMoeConfig, tied, **experts)))


def _qwen(kind: Callable[..., Config], tied: bool, **text: int) -> Config:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    return kind(
        text_config={**_TEXT, "head_dim": 16, "rope_parameters": rope, **text},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=_IMAGE,
        video_token_id=93,
        vision_start_token_id=_START,
        vision_end_token_id=_END,
        tie_word_embeddings=tied,
    )


def glm4v(tied: bool = False) -> PreTrainedModel:
    """GLM-4.6V-Flash's class."""
    return _random(Glm4vForConditionalGeneration(_glm(Glm4vConfig, tied)))


def glm4v_moe(tied: bool = False) -> PreTrainedModel:
    """GLM-4.6V's class: a dense layer, then one of four experts, of which two answer for a token."""
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 1}
    more = {"topk_group": 1, "first_k_dense_replace": 1, "head_dim": 16}
    return _random(Glm4vMoeForConditionalGeneration(_glm(Glm4vMoeConfig, tied, **experts, **more)))


def _glm(kind: Callable[..., Config], tied: bool, **text: int) -> Config:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    return kind(
        text_config={**_TEXT, "rope_parameters": {**rope, "partial_rotary_factor": 0.5}, **text},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "image_size": 32,
            "out_hidden_size": 32,
        },
        image_token_id=_IMAGE,
        video_token_id=93,
        image_start_token_id=_START,
        image_end_token_id=_END,
        video_start_token_id=94,
        video_end_token_id=95,
        tie_word_embeddings=tied,
    )


MODELS = {"qwen3_vl": qwen3_vl, "glm4v": glm4v}


def _random(model: PreTrainedModel) -> PreTrainedModel:
    """Weights large enough that every part matters to the loss."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d | nn.Conv3d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, fan_in**-0.5, generator=generator)
    model.config.use_cache = False
    return model.train()


@functools.cache
def row(seed: int, question: int, answer: int, grids: Sequence[tuple[int, int]] = ()) -> Encoded:
    """A row of `question` and `answer` tokens, the same every time; an image of each grid (height, width in
    patches, even) is part of the question."""
    generator = torch.Generator().manual_seed(seed)

    def text(length: int) -> list[int]:
        return torch.randint(1, 89, (length,), generator=generator).tolist()

    ids, types = text(1 + seed % 3), []
    for height, width in grids:
        ids += [_START, *[_IMAGE] * (height * width // 4), _END, *text(2)]
    ids += text(max(0, question - len(ids)))
    types = [int(token == _IMAGE) for token in ids] + [0] * answer
    taught = text(answer)
    tokens = {
        "input_ids": torch.tensor(ids + taught),
        "attention_mask": torch.ones(len(types), dtype=torch.int64),
        "mm_token_type_ids": torch.tensor(types),
    }
    images = {}
    if grids:
        patches = sum(height * width for height, width in grids)
        images["pixel_values"] = torch.randn(patches, 3 * 2 * 4 * 4, generator=generator)
        images["image_grid_thw"] = torch.tensor([(1, *grid) for grid in grids])
    return Encoded(f"row-{seed}", tokens, torch.tensor([IGNORED] * len(ids) + taught), images)
