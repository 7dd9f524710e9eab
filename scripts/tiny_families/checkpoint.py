"""Writing a tiny model the way its family's checkpoints are published."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_base.checkpoint import LICENSE
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from finetune.layout import published
from lensmith import families


def as_it_is(config: dict[str, Any]) -> dict[str, Any]:
    """A config that is published in the form in which transformers writes it."""
    return config


@dataclass(frozen=True)
class Tiny:
    """How a family's tiny checkpoint is made.

    processor: with its tokenizer. config: one that fits it. model: transformers' class. ends: the tokens that
    end an answer. publish: the config's content in the form in which the family publishes it.
    """

    processor: Callable[[], ProcessorMixin]
    config: Callable[[ProcessorMixin], PreTrainedConfig]
    model: type[PreTrainedModel]
    ends: tuple[str, ...]
    publish: Callable[[dict[str, Any]], dict[str, Any]] = as_it_is


def make_model(tiny: Tiny, config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Random float32 weights, each matrix at 1/sqrt(fan-in): the class's own are far too small for its size,
    or zero, and then no image would change an answer."""
    torch.manual_seed(seed)
    model = tiny.model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                fan_in = parameter.shape[-1] if parameter.dim() < 4 else math.prod(parameter.shape[1:])
                parameter.normal_(0.0, 1 / math.sqrt(fan_in))
    return model.eval()


def write(tiny: Tiny, family: str, out: Path, seed: int) -> Path:
    """Write weights, config, processor, greedy generation config and licence into the directory `out`."""
    out.mkdir(parents=True, exist_ok=True)
    processor = tiny.processor()
    tokenizer = processor.tokenizer
    config = tiny.config(processor)
    model = make_model(tiny, config, seed)
    weights = published(model.state_dict(), families.get(family), config.to_dict())
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    model.config.architectures = [tiny.model.__name__]
    model.config.dtype = "float32"
    content = tiny.publish(model.config.to_dict())
    (out / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(tiny.ends)),
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(out)
    processor.save_pretrained(out)
    (out / "LICENSE").write_text(LICENSE, encoding="utf-8")
    return out
