"""Models of the real classes and rows made of numbers, for tests that need no processor."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    PreTrainedModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from finetune.rows import IGNORED, Encoded

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
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**_TEXT, "head_dim": 16, "rope_parameters": rope},
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
    return _random(Qwen3VLForConditionalGeneration(config))


def glm4v(tied: bool = False) -> PreTrainedModel:
    """GLM-4.6V-Flash's class."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    config = Glm4vConfig(
        text_config={**_TEXT, "rope_parameters": {**rope, "partial_rotary_factor": 0.5}},
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
    return _random(Glm4vForConditionalGeneration(config))


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
