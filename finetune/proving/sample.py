"""Which matrices of a large model are looked at, and what may be missed. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Matrices that are drawn. Of 24,000, the routed experts' in Qwen3-VL-235B-A22B (94 layers, 128 experts, two
# parameters), a fault in one of a hundred (240) is then missed once in 35,000 models; they take minutes.
DRAWN = 1024
# Numbers of wrong matrices for which it is said how likely all of them are missed.
_WRONG = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Matrix:
    """What one expert, or one linear, is of a tensor on disk: `rows` of its first dimension from `first` on.

    name: says which, and is unlike every other's. shard: the file. tower: "" for none. experts: the parameter
    that holds all experts of the layer, "" for a linear. always: it is looked at whatever is drawn.
    """

    name: str
    disk: str
    first: int
    rows: int
    shard: str
    tower: str
    experts: str = ""
    always: bool = False

    @property
    def kind(self) -> tuple[str, str]:
        """Tower and name without the numbers of layers and experts."""
        return self.tower, re.sub(r"\d+", "{}", self.name)


@dataclass(frozen=True)
class Sample:
    """`matrices` to look at, of `of`; `drawn` of them at random, the others as the first of something."""

    matrices: list[Matrix]
    drawn: int
    of: int

    def facts(self) -> dict[str, Any]:
        """What a statement says of it."""
        return {
            "matrices": self.of,
            "sampled": len(self.matrices),
            "drawn": self.drawn,
            "drawn_by": "SHA-256 of the model's id and the matrix's name",
            "all_missed_of": {str(wrong): missed(self.of, self.drawn, wrong) for wrong in _WRONG},
        }


def choose(matrices: Sequence[Matrix], seed: str, drawn: int) -> Sample:
    """Draw so many of `matrices`, in an order that `seed` decides: an artifact's id, which nobody can choose.

    Beside these: every one that is `always` (embeddings and heads); the first in that order of each shard, of
    each kind of module of each tower, and of each layer's experts.
    """
    order = sorted(matrices, key=lambda each: hashlib.sha256(f"{seed} {each.name}".encode()).digest())
    chosen = {each.name: each for each in order[:drawn]}
    seen: set[tuple[str, object]] = set()
    for each in order:
        groups = {("shard", each.shard), ("kind", each.kind), ("experts", each.experts)}
        if each.always or groups - seen:
            chosen[each.name] = each
        seen |= groups
    return Sample(list(chosen.values()), min(drawn, len(matrices)), len(matrices))


def missed(of: int, drawn: int, wrong: int) -> float:
    """How likely none of `wrong` matrices is among `drawn` of `of`, each drawn once (hypergeometric).

    Wrong ones that the sample always has are counted as any other: the true figure is lower.
    """
    if wrong > of - drawn:
        return 0.0
    result = 1.0
    for at in range(wrong):
        result *= (of - drawn - at) / (of - at)
    return float(f"{result:.3g}")
