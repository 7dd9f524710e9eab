"""A model of a case's size with random weights, made where it is trained, and a processor that fits it."""

from __future__ import annotations

from typing import Any

import torch
from tiny_families import MAKERS
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from benchmarks.gpu.case import Case
from benchmarks.gpu.sizes import Size
from finetune.model import DTYPES
from lensmith.tokens import ImageGrid, PixelBudget

# Pixels of a token's side: patches of 16, two by two.
CELL = 32


def budget(case: Case) -> PixelBudget:
    """The pixels of the case's images."""
    least, most = case.image_tokens
    return PixelBudget(least * CELL**2, most * CELL**2)


def grid(case: Case) -> ImageGrid:
    """How images are cut into tokens."""
    return ImageGrid(CELL, 1, budget(case))


def make_processor(family: str, pixels: PixelBudget) -> ProcessorMixin:
    """The processor of the family's tiny model, for images of so many pixels.

    Its tokens are few: those of a real vocabulary would be other rows of the same embeddings.
    """
    processor: Any = MAKERS[family].processor()
    bounds = processor.image_processor.size
    bounds["shortest_edge"], bounds["longest_edge"] = pixels.min_pixels, pixels.max_pixels
    return processor


def make_config(size: Size, processor: ProcessorMixin) -> PreTrainedConfig:
    """The configuration of the size; the processor's tokens are the special ones."""
    tiny = MAKERS[size.family].config(processor)
    if not size.text:
        return tiny
    content = tiny.to_dict()
    # One for each layer; left out, the class makes them.
    content["text_config"].pop("layer_types", None)
    content["text_config"] |= size.text | {"tie_word_embeddings": size.tied}
    content["vision_config"] |= size.vision
    return type(tiny).from_dict(content | {"tie_word_embeddings": size.tied})


def make_model(case: Case, config: PreTrainedConfig, device: torch.device) -> PreTrainedModel:
    """Random weights as the class starts them, on `device`; the same ones at every call there.

    In the dtype in which finetune/train.py loads them: weights that are trained whole stay in float32.
    """
    dtype = torch.float32 if case.method == "full" else DTYPES[case.dtype]
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, trust_remote_code=False)
    model.config.use_cache = False
    return model


def count_parameters(size: Size) -> int:
    """How many weights a model of this size has; a tied head counts once."""
    config = make_config(size, make_processor(size.family, PixelBudget(CELL**2, CELL**2)))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    return sum(each.numel() for each in model.parameters())
