"""One file of merged weights, made from the base's: same header, some rows with new values."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore

from finetune.merging.added_rows import AddedRows
from finetune.merging.change import Changes, Compute, Piece, added
from finetune.merging.crew import Crew
from finetune.merging.late import torch
from finetune.merging.low_rank import Product
from finetune.merging.output import Output, paged_memory, share_blocks
from finetune.merging.tensor_file import Entry, TensorFile, bytes_of, is_finite
from lensmith.errors import InputError, IntegrityError, Problem

# Elements of the rows that are computed at a time: in float32 they stay in a core's own cache. More only
# where so few rows would be a product that is summed in another order than a whole one.
_BLOCK, _ROWS = 1 << 18, 64
# Elements that a job reads and writes at once: enough of them that the disk is not asked too often.
_JOB = 1 << 21
# Bytes that a job copies.
_STRETCH = 16 << 20


@dataclass(frozen=True)
class _New:
    """Rows of a tensor that get new values: those of a piece, from `row` of the tensor on."""

    entry: Entry
    row: int
    piece: Piece


@dataclass
class Shard:
    """A file that is written: the `source` to `output`, which is None where it shares all blocks with it.

    stays: bytes `[first, end)`. elements: computed, by weight of the class. moved: tensors that hold other
    values than the base's. products: what numpy multiplied. jobs: still at it. Jobs raise InputError for a
    value that is not finite, IntegrityError where the source ends early.
    """

    source: TensorFile
    output: Output | None
    stays: list[tuple[int, int]] = field(default_factory=list)
    new: list[_New] = field(default_factory=list)
    elements: Counter[str] = field(default_factory=Counter)
    moved: set[str] = field(default_factory=set)
    products: set[Product] = field(default_factory=set)
    jobs: list[Future[None]] = field(default_factory=list)

    def copy(self, crew: Crew) -> None:
        """Have `crew` copy what stays: no torch is needed."""
        if self.output is None:
            return
        for start, end in self.stays:
            for at in range(start, end, _STRETCH):
                job = functools.partial(self.output.copy, self.source.path, at, min(at + _STRETCH, end))
                self.jobs.append(crew.do(job))

    def compute(self, crew: Crew, *, by_numpy: bool = False) -> None:
        """Have `crew` compute and write what is new; by_numpy: by numpy what it may be asked for."""
        if self.output is None:
            return
        for each in self.new:
            piece, width = each.piece, each.entry.matrix[1]
            cut = [(0, piece.rows)] if piece.whole else list(blocks(piece.rows, width))
            self.elements[piece.weight] += sum(count for _, count in cut) * width
            if not piece.low_rank:
                assert piece.start
                self._compute(crew, self.output, each, piece.start(), cut)
                continue
            change = piece.low_rank()
            rows = AddedRows(self.source, self.output, each.entry, each.row, change, self.moved, crew.cores)
            products = rows.products(piece.rows, cut) if by_numpy else None
            if products is None:
                self._compute(crew, self.output, each, added(change), cut)
                continue
            self.products |= products
            for some in _together(cut, piece.rows * width):
                self.jobs.append(crew.do(functools.partial(rows.make, some)))

    def _compute(
        self, crew: Crew, output: Output, new: _New, compute: Compute, cut: Sequence[tuple[int, int]]
    ) -> None:
        elements = new.piece.rows * new.entry.matrix[1]
        make = functools.partial(_make, self.source, output, new, compute, self.moved, crew.cores)
        jobs = [functools.partial(make, some) for some in _together(cut, elements)]
        for job in [functools.partial(_in_turn, jobs)] if new.piece.in_turn else jobs:
            self.jobs.append(crew.compute(job))

    def finish(self) -> None:
        """Wait until every job is done, and write what they left. Raises what one raised."""
        for job in self.jobs:
            job.result()
        if self.output:
            self.output.finish()


def begin_shard(source: TensorFile, target: Path, changes: Changes) -> Shard:
    """`source` at `target` with the `changes` of its tensors: what stays is to be copied, or shared with the
    base by file systems that can, and what is new to be computed."""
    changes = {name: changes[name] for name in source.entries.keys() & changes.keys()}
    if not changes and share_blocks(source.path, target):
        return Shard(source, None)
    shard = Shard(source, Output(target, source.size))
    # The head is copied with what comes behind it.
    at = 0
    for entry in source.entries.values():
        if entry.name not in changes:
            continue
        pieces = changes[entry.name]
        if sum(piece.rows for piece in pieces) != entry.matrix[0]:
            raise IntegrityError(f"the pieces of {entry.name} are not all of its {entry.matrix[0]} rows")
        row = 0
        for piece in pieces:
            if piece.rows and not piece.stays:
                start = entry.start + row * entry.row_bytes
                shard.stays.append((at, start))
                shard.new.append(_New(entry, row, piece))
                at = start + piece.rows * entry.row_bytes
            row += piece.rows
    shard.stays.append((at, source.size))
    return shard


def _together(cut: Sequence[tuple[int, int]], elements: int) -> Iterator[Sequence[tuple[int, int]]]:
    """The blocks that make a job each, of `elements` in all."""
    count = max(1, _JOB * len(cut) // max(elements, 1))
    for at in range(0, len(cut), count):
        yield cut[at : at + count]


def _in_turn(jobs: Sequence[Callable[[], None]]) -> None:
    for job in jobs:
        job()


def blocks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each block that `rows` are computed in, all of about the same size."""
    at_once = max(_BLOCK // max(width, 1), _ROWS)
    count = math.ceil(rows / at_once)
    for number in range(count):
        first = rows * number // count
        yield first, rows * (number + 1) // count - first


def _make(
    source: TensorFile,
    output: Output,
    new: _New,
    compute: Compute,
    moved: set[str],
    cores: BoundedSemaphore,
    cut: Sequence[tuple[int, int]],
) -> None:
    """As `AddedRows.make`, whatever the rows become."""
    entry, row = new.entry, new.row
    begin, rows = cut[0][0], sum(count for _, count in cut)
    at = entry.start + (row + begin) * entry.row_bytes
    with cores:
        stored = source.read_rows(entry.name, row + begin, rows)
        made = _as_in_file(stored, at)
        inputs = [(stored[first - begin : first - begin + count], first) for first, count in cut]
        for block, first in inputs:
            values = compute(block, first)
            if values.shape != block.shape:
                raise IntegrityError(f"{entry.name} changed its shape in merging")
            made[first - begin : first - begin + len(block)].copy_(values)
        if not is_finite(made):
            if all(is_finite(compute(*each)) for each in inputs):
                raise InputError(
                    "the merged weights overflow the base's dtype", [Problem("NaN or infinite", entry.name)]
                )
            raise InputError("the merged weights are broken", [Problem("NaN or infinite", entry.name)])
        if entry.name not in moved and not torch.equal(made, stored):
            moved.add(entry.name)
    output.write(bytes_of(made), at)


def _as_in_file(stored: torch.Tensor, at: int) -> torch.Tensor:
    """Memory of the calling thread for a tensor like `stored`, which is to lie at the byte `at` of a file."""
    if at % stored.itemsize or not stored.numel():
        return torch.empty_like(stored)
    memory = torch.frombuffer(paged_memory(stored.nbytes, at), dtype=stored.dtype)
    return memory.view(stored.shape)
