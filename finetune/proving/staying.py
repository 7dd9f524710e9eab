"""Which elements of an adapter's change of a matrix stay, said for a block of its rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
from torch import Tensor

from finetune.combination import Combination
from finetune.proving.combination import drawing, drawn_below
from finetune.proving.largest import kth_largest
from lensmith.merge_settings import DRAWN


class Staying(Protocol):
    """Of one adapter's change of one matrix."""

    def of(self, change: Tensor, first: int) -> Tensor | None:
        """bool [rows, in]: those of `change` [rows, in], its rows from `first` on; None where all stay."""
        ...


class _All:
    def of(self, change: Tensor, first: int) -> None:
        return None


class _Largest:
    """Those of at least a magnitude: the smallest of the `count` largest of the whole matrix."""

    def __init__(self, blocks: Callable[[], Iterable[Tensor]], count: int) -> None:
        self._smallest = kth_largest(blocks, count)

    def of(self, change: Tensor, first: int) -> Tensor:
        return change.abs() >= self._smallest


class _Drawn:
    """Those that are drawn, row by row from the first: rows that were passed are drawn once more."""

    def __init__(self, begin: Callable[[], np.random.Generator], density: float) -> None:
        self._begin, self._density = begin, density
        self._source, self._row = begin(), 0

    def of(self, change: Tensor, first: int) -> Tensor:
        if first < self._row:
            self._source, self._row = self._begin(), 0
        rows, width = change.shape
        while self._row < first:
            skipped = min(rows, first - self._row)
            drawn_below(self._source, (skipped, width), self._density)
            self._row += skipped
        self._row += rows
        return drawn_below(self._source, (rows, width), self._density)


def staying_in(
    blocks: Callable[[], Iterable[Tensor]],
    shape: tuple[int, int],
    number: int,
    combination: Combination,
    weight: str,
) -> Staying:
    """What stays of the change that the adapter with this number makes of a matrix `weight` of this shape.

    blocks: each call gives that change, float32, some rows at a time, in their order.
    """
    density = combination.density
    if density is None:
        return _All()
    if combination.method in DRAWN:
        return _Drawn(lambda: drawing(combination.seed, number, weight, None), density)
    return _Largest(blocks, int(density * shape[0] * shape[1]))
