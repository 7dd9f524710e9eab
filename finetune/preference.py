"""Preference training (DPO): the sigmoid loss over answers and rejected ones, both scored against the base.

Rafailov et al. 2023, "Direct Preference Optimization" (arXiv:2305.18290), equation 7. Batches are of pairs:
all rows with their answers, then all with the rejected ones (see `finetune.collate`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


class ScoredPairs(NamedTuple):
    """A batch of pairs, scored at answer positions alone; each tensor is [2 * pairs], answers first.

    policy, reference: float32, nats of each answer by the model in training and by its base. answers,
    correct: int64, the tokens of each, and how many of them the model in training would have written itself.
    """

    policy: Tensor
    reference: Tensor
    answers: Tensor
    correct: Tensor


def score_pairs(model: nn.Module, adapted: PeftModel, asked: Mapping[str, Any]) -> ScoredPairs:
    """Score a batch: `asked`, answer_labels among it, as `teach_answers_only` lets a model take it.

    model: `adapted` as it is called, a wrapper around it or itself. The reference goes first: nothing of the
    other pass is held in memory yet.
    """
    with as_reference(adapted):
        reference, _, _ = model(**asked, by_row=True)
    policy, answers, correct = model(**asked, by_row=True)
    return ScoredPairs(policy, reference, answers, correct)


@contextlib.contextmanager
def as_reference(model: PeftModel) -> Iterator[None]:
    """The base that `model` adapts, in its place: no adapter, no dropout, no gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), model.disable_adapter():
            yield
    finally:
        model.train(training)


def rewards(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The implicit rewards [pairs] of answers and of rejected ones: beta times how much likelier they became.

    policy, reference: nats of each answer [2 * pairs], those of answers first.
    """
    chosen, rejected = (beta * (reference - policy)).chunk(2)
    return chosen, rejected


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The loss [pairs] of rewards [pairs], in nats: log 2 where nothing was learned yet."""
    return -logsigmoid(chosen - rejected)


def pairs_in(batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """How many pairs a step's batches hold, int64."""
    return torch.tensor(sum(len(batch["labels"]) // 2 for batch in batches))
