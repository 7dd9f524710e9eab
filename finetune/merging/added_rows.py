"""Stored rows of bfloat16 and a change of low rank, added and written without torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.merging.floats import are_equal, are_finite, narrow, widen
from finetune.merging.low_rank import LowRank, Product, for_numpy
from finetune.merging.output import Output, paged_memory
from finetune.merging.tensor_file import Entry, TensorFile
from lensmith.errors import InputError, Problem

_of_thread = threading.local()


@dataclass(frozen=True)
class AddedRows:
    """Of the tensor `entry` the rows from `row` on, in which blocks are counted, to which `change` is added.

    moved: takes the tensor's name where a value changes. cores: as many at a time compute.
    """

    source: TensorFile
    output: Output
    entry: Entry
    row: int
    change: LowRank
    moved: set[str]
    cores: BoundedSemaphore

    def products(self, rows: int, cut: Sequence[tuple[int, int]]) -> set[Product] | None:
        """The shapes that are multiplied where `rows` are cut into blocks; None where numpy is not asked."""
        width = self.entry.matrix[1]
        found = {Product(count, self.change.rank, width, self.change.turned) for _, count in cut}
        asked = self.entry.dtype == "BF16" and all(for_numpy(each, rows) for each in found)
        return found if asked else None

    def make(self, cut: Sequence[tuple[int, int]]) -> None:
        """Read the rows of some blocks, compute what they become, check it and write it.

        Raises InputError where a value is not finite, or not in bfloat16.
        """
        begin, rows = cut[0][0], sum(count for _, count in cut)
        at = self.entry.start + (self.row + begin) * self.entry.row_bytes
        with self.cores:
            stored: NDArray[np.uint16] = self.source.stored_rows(self.entry.name, self.row + begin, rows)
            new = _as_in_file(stored, at)
            for first, count in cut:
                here = slice(first - begin, first - begin + count)
                self._add(stored[here], first, new[here])
            if self.entry.name not in self.moved and not are_equal(new, stored):
                self.moved.add(self.entry.name)
        self.output.write(new.data.cast("B"), at)

    def _add(self, stored: NDArray[np.uint16], first: int, into: NDArray[np.uint16]) -> None:
        """base + scale * B @ A, rounded as by PEFT: the product, the change, the sum, at last to bfloat16."""
        change, room = _blocks(stored.shape)
        self.change.by_numpy(first, len(stored), change)
        if self.change.scale != 1:
            np.multiply(change, np.float32(self.change.scale), out=change)
        np.add(change, widen(stored, room), out=change)
        narrow(change, into, room.view(np.uint32))
        if not are_finite(into):
            how = "overflow the base's dtype" if np.isfinite(change).all() else "are broken"
            raise InputError(f"the merged weights {how}", [Problem("NaN or infinite", self.entry.name)])


def _blocks(shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two matrices of the calling thread, its own until it calls again."""
    count = shape[0] * shape[1]
    kept: list[NDArray[np.float32]] = getattr(_of_thread, "blocks", [])
    if not kept or kept[0].size < count:
        kept = _of_thread.blocks = [np.empty(count, np.float32) for _ in range(2)]
    one, other = (each[:count].reshape(shape) for each in kept)
    return one, other


def _as_in_file(stored: NDArray[Any], at: int) -> NDArray[Any]:
    """Memory of the calling thread for rows like `stored`, which are to lie at the byte `at` of a file."""
    if at % stored.itemsize:
        return np.empty_like(stored)
    return np.frombuffer(paged_memory(stored.nbytes, at), stored.dtype).reshape(stored.shape)
