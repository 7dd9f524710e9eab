"""Loading a checkpoint from a local directory: weights, processor, or only its shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from finetune.new_tokens import add_tokens
from lensmith.errors import IntegrityError, Problem
from lensmith.tokens import PixelBudget
from lensmith.train_settings import Train

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHOWN = 5
# How transformers 5.20 (utils/loading_report.py) ends what it raises for weights that do not fit its class.
_REPORTED = "the above report"


def load_model(checkpoint: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The checkpoint's model in `dtype`, on the CPU (partitioned while ZeRO-3 is on).

    Safetensors only, no code from the checkpoint, no network. Raises IntegrityError where the checkpoint
    lacks a weight, which transformers only warns of and starts at random, holds one of another shape, or not
    every expert of a layer.
    """
    try:
        # The annotation of from_pretrained knows nothing of output_loading_info.
        model, found = AutoModelForImageTextToText.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            checkpoint,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except RuntimeError as error:
        if _REPORTED not in str(error):
            raise
        problem = Problem("a shape or a number of experts differs", mend="read transformers' report above")
        raise IntegrityError(f"{checkpoint} does not fit its model", [problem]) from error
    missing = sorted(found["missing_keys"])
    if missing:
        problems = [Problem("is missing from the weights", name) for name in missing[:_SHOWN]]
        raise IntegrityError(f"{checkpoint} does not fill its model: {len(missing)} tensors", problems)
    return model


def in_dtype(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """A model's inputs with what is not a number or a mask (pixels) in the model's dtype.

    Most classes turn pixels into it themselves; DeepSeek-OCR-2's does not.
    """
    return {name: each.to(dtype) if each.is_floating_point() else each for name, each in inputs.items()}


def load_skeleton(checkpoint: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The checkpoint's model on the meta device: names and shapes of every weight, no memory, no weights."""
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype, trust_remote_code=False)


def shape_in_training(checkpoint: Path, train: Train, *, divided: bool) -> PreTrainedModel:
    """The checkpoint's model on the meta device as a training computes with it: in float32 where any of it is
    fully trained, unless it is `divided`, by DeepSpeed or FSDP2, which compute in `train.dtype`."""
    whole = train.method == "full" and not divided
    return load_skeleton(checkpoint, torch.float32 if whole else DTYPES[train.dtype])


def load_processor(
    checkpoint: Path, pixels: PixelBudget | None, new_tokens: Iterable[str] = ()
) -> ProcessorMixin:
    """The checkpoint's processor (tokenizer, chat template, image processor) under the pixel budget.

    `pixels` bounds an image's area after resizing, in pixels; None keeps the checkpoint's own bounds.
    `new_tokens`: what its tokenizer is extended by, as `read_new_tokens` has judged it.
    """
    processor = AutoProcessor.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    if pixels is not None:
        bounds = processor.image_processor.size
        bounds["shortest_edge"], bounds["longest_edge"] = pixels.min_pixels, pixels.max_pixels
    add_tokens(processor.tokenizer, new_tokens)
    return processor
