"""Changes of the same rows into one, in float32: see `finetune.combination` for the definitions."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.merging.late import torch


def added(changes: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted sum, added in their order."""
    total = torch.zeros_like(changes[0])
    for change, weight in zip(changes, weights, strict=True):
        total += change * weight
    return total


def elected(changes: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted mean of those elements that have the sign of the sum of all."""
    positive = added(changes, [1.0] * len(changes)) >= 0
    total, count = torch.zeros_like(changes[0]), torch.zeros_like(changes[0])
    for change, weight in zip(changes, weights, strict=True):
        agrees = torch.where(positive, change > 0, change < 0)
        total += (change * weight) * agrees
        count += agrees
    return total.div_(count.clamp_(min=1))
