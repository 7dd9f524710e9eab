"""What a model learns from batches as collators make them: the loss, and every gradient."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

Gradients = dict[str, Tensor]
Learned = tuple[float, Gradients]


def learned(model: PreTrainedModel, batches: Sequence[dict[str, Tensor]]) -> Learned:
    """The summed loss of some batches and its gradients."""
    total = 0.0
    for batch in batches:
        given = {name: values for name, values in batch.items() if name != "labels"}
        # With a cache, which is the default, transformers looks for no documents: they would leak silently.
        loss = model(**given, use_cache=False, answer_labels=batch["labels"])[0]
        loss.backward()
        total += float(loss.detach())
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return total, found
