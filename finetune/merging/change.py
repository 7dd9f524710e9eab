"""What becomes of a tensor on disk: pieces of consecutive rows, each as it is or with new values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune.merging.late import torch
from finetune.merging.low_rank import LowRank

# Of stored rows [n, width], and the number of the first among its piece's: their new values, in a dtype from
# which they are rounded once.
Compute = Callable[["torch.Tensor", int], "torch.Tensor"]


@dataclass(frozen=True)
class Piece:
    """`rows` consecutive rows of a tensor, seen as a matrix of its last dimension.

    weight: the weight of the class that they belong to. start: reads what it takes and gives what computes
    the new values; called once, when the piece's turn comes. low_rank: the same, where these are the stored
    ones and a change of low rank. Neither where the rows stay. whole: all of them are computed at once.
    in_turn: from the first to the last, by one thread.
    """

    weight: str
    rows: int
    start: Callable[[], Compute] | None = None
    low_rank: Callable[[], LowRank] | None = None
    whole: bool = False
    in_turn: bool = False

    @property
    def stays(self) -> bool:
        """Whether the rows do."""
        return self.start is None and self.low_rank is None


# By tensor on disk its pieces, which are all of its rows. What is not named stays.
Changes = Mapping[str, Sequence[Piece]]


@dataclass(frozen=True)
class Plan:
    """What becomes of a base's tensors, and by weight how many elements are computed for that. check: raises
    InputError for values that are not to be merged; for the first of those who compute."""

    changes: Changes
    expected: Mapping[str, int]
    check: Callable[[], None] = lambda: None


def added(change: LowRank) -> Compute:
    """Adds a change of low rank to stored rows."""
    return lambda stored, first: add_scaled(stored, change.by_torch(first, len(stored)), change.scale)


def add_scaled(base: torch.Tensor, product: torch.Tensor, scale: float) -> torch.Tensor:
    """base + scale * product, in float32; uses up the memory of `product`, which is in float32.

    As PEFT rounds it: the change, then the sum. To multiply by 1, 2, 4, ... rounds nothing, and may be done
    in the pass that adds.
    """
    wide = base.to(torch.float32)
    if scale >= 1 and math.frexp(scale)[0] == 0.5:
        return torch.add(wide, product, alpha=scale, out=product)
    return product.mul_(scale).add_(wide)
