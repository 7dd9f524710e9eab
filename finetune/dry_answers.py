"""Answers without memory: what a model holds while it is asked, from a dry pass over the largest batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from finetune.dry_run import dry_prompt
from finetune.greedy import BATCH, Prompt
from finetune.model import in_dtype
from finetune.prompts import encode_conversation
from lensmith.rendering import Rendering
from lensmith.row_file import Row

# Copies of a step's logits in float32 that `greedy` makes: generate's, their log_softmax, and its results.
_COPIES = 4


def largest_batch(
    processor: ProcessorMixin, rendering: Rendering, rows: Sequence[Row], batch: int = BATCH
) -> dict[str, Tensor]:
    """Of the batches in which `greedy` asks `rows`, the one with the most tokens, as the model is given it.

    rows: at least one. All are read twice: their tensors together may be larger than the machine.
    """

    def encoded(row: Row) -> Prompt:
        return Prompt(row, encode_conversation(processor, rendering, row.sample, row.images, answered=False))

    shapes = [encoded(row).shape for row in rows]
    alike = Counter(shapes)
    most = 1 if rendering.family.numbers else batch

    def tokens(shape: tuple[tuple[str, tuple[int, ...]], ...]) -> int:
        return min(most, alike[shape]) * math.prod(dict(shape)["input_ids"])

    largest = max(alike, key=tokens)
    prompt = encoded(rows[shapes.index(largest)])
    count = min(most, alike[largest])
    return {name: torch.cat([values] * count) for name, values in prompt.tensors.items()}


def dry_answers(
    model: PreTrainedModel, batch: Mapping[str, Tensor], new_tokens: int, *, autocast: bool
) -> int:
    """Bytes that `greedy` holds at most beside weights: `model` answers `batch` with `new_tokens` tokens.

    The most is reached in the pass over the prompts, or at the last token, when keys and values of all tokens
    are there. model: on the meta device, used up. autocast: to bfloat16.
    """
    text = model.config.get_text_config()
    rows, prompt = batch["input_ids"].shape
    inputs = in_dtype(batch, model.dtype)
    given = sum(values.nbytes for values in inputs.values())
    seen = dry_prompt(model, inputs, autocast=autocast)
    kept = seen.cache * text.num_hidden_layers * (prompt + new_tokens) / prompt
    # Behind which a token's are put: a layer's keys lie there twice then.
    growing = kept / text.num_hidden_layers / 2
    logits = _COPIES * rows * text.vocab_size * torch.float32.itemsize
    return max(seen.held, int(given + kept + max(growing, logits)))
