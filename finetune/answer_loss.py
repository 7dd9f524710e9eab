"""The loss at answer positions alone: the output head never sees the rest of a row.

An answer is a small part of a row of images and questions, and the vocabulary is the model's widest layer:
logits of every position would be most of the memory of a step, and on a CPU most of its time.
"""

from __future__ import annotations

import functools
import math
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from finetune.encoded import IGNORED
from lensmith.errors import InputError, Problem

# Logits that exist at a time: 512 MiB in float32, 883 positions of a vocabulary of 151,936. Further positions
# are scored piece by piece, and each piece again in the backward pass.
LOGITS = 1 << 27
# Logits that are turned into probabilities at a time, in float32: 16 MiB.
_BLOCK = 1 << 22
# What some decoders do to logits behind the head; computed from the head alone the loss would leave it out.
_BEHIND_THE_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def teach_answers_only(model: PreTrainedModel, logits: int = LOGITS) -> None:
    """Let `model(..., answer_labels=labels)` give (loss, answers, correct) in place of logits.

    labels: int64 [rows, length], IGNORED where no loss is taken. loss: float32, nats summed over the answer
    tokens. answers, correct: int64, how many they are, and how many the model would have written itself. With
    `by_row=True` the three are of each row, [rows].

    The model runs up to its last hidden states; its head is called as the module that it is, adapter
    included, on the positions before answer tokens, at most `logits` logits at a time. Without
    `answer_labels` the model is called as ever. Raises InputError for a model that does more to its logits
    than its head does.
    """
    text = model.config.get_text_config().to_dict()
    found = [name for name in _BEHIND_THE_HEAD if text.get(name) not in (None, 1, 1.0)]
    if found:
        problems = [Problem(f"is {text[name]}", name, "its loss is not known here") for name in found]
        raise InputError("this model changes its logits behind the output head", problems)
    whole, vocabulary = model.forward, int(text["vocab_size"])

    # The signature stays: the trainer and PEFT look at it.
    @functools.wraps(type(model).forward)
    def forward(
        self: PreTrainedModel,
        *args: Any,
        answer_labels: Tensor | None = None,
        by_row: bool = False,
        **inputs: Any,
    ) -> Any:
        if answer_labels is None:
            return whole(*args, **inputs)
        hidden = self.base_model(*args, **inputs).last_hidden_state
        taught = answer_labels[:, 1:] != IGNORED
        states, targets = hidden[:, :-1][taught], answer_labels[:, 1:][taught]
        # Looked up at every call: PEFT replaces it.
        head = self.get_output_embeddings()
        if head is None:
            raise TypeError(f"{type(self).__name__} has no output head")
        nats, correct = _score(head, states, targets, vocabulary, logits)
        if not by_row:
            return nats.sum(), torch.tensor(len(targets), device=nats.device), correct.sum()
        rows = taught.nonzero()[:, 0]
        return tuple(
            each.new_zeros(len(taught)).index_add(0, rows, each)
            for each in (nats, torch.ones_like(targets), correct.long())
        )

    model.forward = MethodType(forward, model)


def _score(
    head: nn.Module, states: Tensor, targets: Tensor, vocabulary: int, logits: int
) -> tuple[Tensor, Tensor]:
    """Nats float32 [answers], and whether the model would write it, bool [answers].

    states [answers, hidden], targets int64 [answers].
    """

    def piece(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _CrossEntropy.apply(head(states), targets)

    answers = torch.tensor(len(targets), device=states.device)
    pieces = max(1, math.ceil(_most(answers) * vocabulary / logits))
    if pieces == 1:
        return piece(states, targets)
    parts = [
        checkpoint(piece, *part, use_reentrant=False)
        for part in zip(states.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
    ]
    return torch.cat([nats for nats, _ in parts]), torch.cat([correct for _, correct in parts])


def _most(count: Tensor) -> int:
    """The largest of all processes' counts: under ZeRO-3 they wait for each other at every call of a head."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = count.clone()
        torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX)
    return int(count)


class _CrossEntropy(torch.autograd.Function):
    """Nats of each target, in float32 whatever the logits are; their gradient is written over the logits."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """logits [n, vocabulary], targets int64 [n] to nats float32 [n] and bool [n]: is it the likeliest?"""
        total = logits.new_empty(len(targets), dtype=torch.float32)
        correct = torch.empty_like(targets, dtype=torch.bool)
        for block in _blocks(logits):
            values = logits[block].float()
            top, place = values.max(-1)
            correct[block] = place == targets[block]
            total[block] = (values - top[:, None]).exp_().sum(-1).log_() + top
        ctx.save_for_backward(logits, targets, total)
        ctx.mark_non_differentiable(correct)
        return total - logits.gather(-1, targets[:, None])[:, 0].float(), correct

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, upstream: Tensor, _: Tensor
    ) -> tuple[Tensor, None]:
        """softmax minus one at the target, times the upstream gradient [n]."""
        logits, targets, total = ctx.saved_tensors
        for block in _blocks(logits):
            slope = logits[block].float().sub_(total[block, None]).exp_()
            slope.scatter_add_(-1, targets[block, None], slope.new_full((len(slope), 1), -1.0))
            logits[block] = slope.mul_(upstream[block, None])
        return logits, None


def _blocks(logits: Tensor) -> list[slice]:
    rows = max(1, _BLOCK // max(1, logits.shape[-1]))
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]
