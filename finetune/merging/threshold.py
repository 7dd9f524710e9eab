"""The k-th largest magnitude of a matrix that is seen a block of rows at a time, exactly, in two passes.

Magnitudes of float32 are in the order of their bits: the first pass counts them by the upper 16, the second
those of one such group by the lower 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from finetune.merging.late import torch

_LOWER = 16
_GROUP = 1 << _LOWER


def threshold(blocks: Callable[[], Iterable[torch.Tensor]], kept: int) -> float:
    """The `kept`-th largest magnitude of the elements that `blocks` gives, float32, the same at each call;
    infinity for none."""
    if not kept:
        return math.inf
    upper = _counts(_bits(block) >> _LOWER for block in blocks())
    group, above = _find(upper, kept)
    lower = _counts(_of_group(_bits(block), group) for block in blocks())
    place, _ = _find(lower, kept - above)
    return float(torch.tensor((group << _LOWER) | place, dtype=torch.int32).view(torch.float32))


def _bits(block: torch.Tensor) -> torch.Tensor:
    """int32 [elements]: in the order of the magnitudes."""
    return block.abs().view(-1).view(torch.int32)


def _of_group(bits: torch.Tensor, group: int) -> torch.Tensor:
    return bits[(bits >> _LOWER) == group] & (_GROUP - 1)


def _counts(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    counts = torch.zeros(_GROUP, dtype=torch.int64)
    for part in parts:
        counts += torch.bincount(part, minlength=_GROUP)
    return counts


def _find(counts: torch.Tensor, wanted: int) -> tuple[int, int]:
    """The highest place with `wanted` elements at it and above, and how many lie above it."""
    at_least = counts.flip(0).cumsum(0).flip(0)
    place = int((at_least >= wanted).nonzero()[-1])
    return place, int(at_least[place] - counts[place])
