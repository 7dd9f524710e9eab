"""An untaught Qwen3-VL of tiny size, written as an ordinary checkpoint directory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from bank_forms.layout import CELL
from torch import nn
from transformers import (
    GenerationConfig,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tiny_base.vocabulary import make_tokenizer, read_chat_template

PATCH = CELL // 2
# Pixel bounds of an image, one token being CELL x CELL pixels: 4 to 256 image tokens.
MIN_PIXELS = 4 * CELL * CELL
MAX_PIXELS = 256 * CELL * CELL
_MEAN_AND_STD = [0.5, 0.5, 0.5]

# A cell is nearly all paper, which drowns the strokes unless the patch embedding starts with larger weights
# than the other layers: without them the loss stays at chance for hundreds of steps.
PATCH_EMBEDDING_STD = 0.08

LICENSE = """\
Copyright the Lensmith authors

Licensed under the Apache License, Version 2.0 (the "License"); you may not use these weights, this tokenizer
and these configuration files except in compliance with the License. You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is
distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See
the License for the specific language governing permissions and limitations under the License.

The weights were made in code, from random numbers and pictures of printed digits: no other model's weights or
data went into them.
"""


@dataclass(frozen=True)
class Size:
    """The numbers of a tiny Qwen3-VL. Head sizes must be ones that vLLM's CPU attention has: 32, 64, 80..."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    vision_hidden: int
    vision_feed_forward: int
    vision_depth: int
    vision_heads: int
    deepstack: tuple[int, ...]


# The demo's base, and the least that still has every kind of module (for tests that need no skill).
DEMO = Size(128, 320, 4, 2, 1, 64, 128, 256, 3, 2, (0, 1))
SMALLEST = Size(64, 128, 2, 2, 1, 32, 64, 128, 2, 2, (0,))


def make_processor() -> Qwen3VLProcessor:
    """Qwen3-VL's processor with the tiny tokenizer, its chat template and the demo's pixel bounds."""
    template = read_chat_template()
    bounds = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size=bounds, patch_size=PATCH, merge_size=2, image_mean=_MEAN_AND_STD, image_std=_MEAN_AND_STD
        ),
        tokenizer=make_tokenizer(template),
        video_processor=Qwen3VLVideoProcessor(
            size=bounds, patch_size=PATCH, merge_size=2, image_mean=_MEAN_AND_STD, image_std=_MEAN_AND_STD
        ),
        chat_template=template,
    )


def make_config(size: Size, processor: Qwen3VLProcessor) -> Qwen3VLConfig:
    """The configuration of a Qwen3-VL of this size that fits the processor."""
    tokenizer = processor.tokenizer

    def token(text: str) -> int:
        return tokenizer.convert_tokens_to_ids(text)

    half = size.head_size // 2
    # Time, height and width share the rotary frequencies in turn; time takes what thirds leave over.
    third = half // 3
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden,
            "intermediate_size": size.feed_forward,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.key_value_heads,
            "head_dim": size.head_size,
            "max_position_embeddings": tokenizer.model_max_length,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [half - 2 * third, third, third],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_feed_forward,
            "num_heads": size.vision_heads,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": size.hidden,
            "num_position_embeddings": 16 * 16,
            "deepstack_visual_indexes": list(size.deepstack),
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
        dtype="float32",
    )


def make_model(config: Qwen3VLConfig, seed: int) -> Qwen3VLForConditionalGeneration:
    """Random float32 weights. Linear layers start at 1/sqrt(fan-in): 0.02 suits hidden sizes of thousands."""
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0.0, 1 / math.sqrt(module.in_features))
        model.model.visual.patch_embed.proj.weight.normal_(0.0, PATCH_EMBEDDING_STD)
    return model.eval()


def save(out: Path, model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor) -> None:
    """Write model, processor, greedy generation configuration and licence into the directory `out`."""
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    processor.save_pretrained(out)
    (out / "LICENSE").write_text(LICENSE, encoding="utf-8")


def write_untaught(out: Path, size: Size = SMALLEST, seed: int = 0) -> None:
    """Write an untaught checkpoint into the directory `out`, made where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    processor = make_processor()
    save(out, make_model(make_config(size, processor), seed), processor)
