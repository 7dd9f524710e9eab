"""What several adapters, combined by weights, make of a base's tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune.layout import Part
from finetune.merging.adapter import Adapter, check_values, read_adapter
from finetune.merging.change import Compute, Piece, Plan
from finetune.merging.checkpoint import Checkpoint
from finetune.merging.combine import added, elected
from finetune.merging.crew import Crew
from finetune.merging.drawn import drawing_key, kept
from finetune.merging.experts import StartExpert, expert_change
from finetune.merging.late import torch
from finetune.merging.lora import check_head, wanted_by
from finetune.merging.shard import blocks
from finetune.merging.slots import Slot, Slots, find_slots
from finetune.merging.threshold import threshold
from finetune.merging.tied import tied_head
from finetune.quantized import read_quantized
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family
from lensmith.merge_settings import DRAWN

if TYPE_CHECKING:
    from finetune.combination import Combination


class Matrix(NamedTuple):
    """A weight of the class, or one expert's matrix of it: what is combined at once."""

    weight: str
    expert: int | None


@dataclass(frozen=True)
class Stretch:
    """`rows` of a tensor on disk from row `first` on, which are a matrix, or a part of it."""

    disk: str
    first: int
    rows: int
    part: Part


@dataclass(frozen=True)
class Member:
    """One of the adapters. change: gives by how much an expert's matrix changes."""

    adapter: Adapter
    change: StartExpert

    def adapts(self, weight: str) -> bool:
        """Whether it has a delta of this weight of the class."""
        return weight in self.adapter.experts or weight.removesuffix(".weight") in self.adapter.deltas

    def start(self, matrix: Matrix, part: Part) -> Compute:
        """Gives what makes rows of a `part` on disk by how much they change."""
        if matrix.expert is not None:
            return self.change(part, matrix.expert)
        change = self.adapter.change(self.adapter.deltas[matrix.weight.removesuffix(".weight")])
        before = part.rows[0] if part.rows else 0
        return lambda base, first: change(base, before + first)

    def shape(self, weight: str) -> tuple[int, int]:
        """Rows and width of a weight's matrices in the class."""
        shape, _ = self.adapter.shapes()[weight]
        return shape[-2], shape[-1]


def read_member(run: Path, base: Checkpoint, family: Family) -> tuple[Member, Slots]:
    """An adapter that can be combined with others, and where on disk the weights lie that it changes.

    Raises InputError for what `read_adapter`, `check_values` and `find_slots` refuse, and for what is no
    change of `base`.
    """
    adapter = read_adapter(run, family.experts)
    check_values(adapter)
    check_head(adapter, tied_head(base.root))
    problems = [
        Problem("is whole rows of new tokens, which cannot be weighed", name) for name in adapter.rows
    ]
    problems += [
        Problem("is a weight held whole, or a bias, which cannot be weighed", name) for name in adapter.whole
    ]
    if read_quantized(run) is not None:
        mend = "train it with method lora"
        problems.append(Problem("was trained on the base in 4 bits: it is no change of this one", mend=mend))
    if problems:
        raise InputError("the adapter cannot be combined with others", problems)
    return Member(adapter, expert_change(adapter.file, adapter.experts)), find_slots(
        wanted_by(adapter), base, family
    )


def plan_combined(
    base: Checkpoint, family: Family, adapters: Sequence[Path], combination: Combination, crew: Crew
) -> Plan:
    """Every weight that one of the `adapters` has a part of. Where the method trims, all of them are looked
    at first, by `crew`, to find out what stays.

    Raises InputError where one cannot be merged whole, is broken, or belongs to another base.
    """
    read = [read_member(each, base, family) for each in adapters]
    members = [member for member, _ in read]
    slots = {disk: each for _, found in read for disk, each in found.items()}
    lying: dict[Matrix, list[Stretch]] = {}
    for disk, each in slots.items():
        for matrix, stretch in _stretches(disk, each, base.entry(disk).shape):
            lying.setdefault(matrix, []).append(stretch)
    making = _Making(base, members, combination, _smallest(base, members, lying, combination, crew))
    changes: dict[str, list[Piece]] = {}
    for disk, each in slots.items():
        changes[disk] = [
            making.piece(matrix, stretch)
            for matrix, stretch in _stretches(disk, each, base.entry(disk).shape)
        ]
    expected = {
        name: math.prod(shape) for member in members for name, (shape, _) in member.adapter.shapes().items()
    }
    return Plan(changes, expected)


def _stretches(disk: str, slots: Sequence[Slot], shape: Sequence[int]) -> Iterator[tuple[Matrix, Stretch]]:
    """What the rows of a tensor on disk are, first to last."""
    at = 0
    for slot in slots:
        # Only of a fused parameter a tensor of three dimensions holds all experts.
        count = shape[0] if len(shape) == 3 else 1
        rows = math.prod(shape[1:-1]) if len(shape) == 3 else slot.rows
        for number in range(count):
            expert = number if len(shape) == 3 else slot.part.expert
            yield Matrix(slot.part.name, expert), Stretch(disk, at, rows, slot.part)
            at += rows


# By matrix, and the number of an adapter: the smallest magnitude that stays.
Smallest = Mapping[tuple[Matrix, int], float]


def _smallest(
    base: Checkpoint,
    members: Sequence[Member],
    lying: Mapping[Matrix, Sequence[Stretch]],
    combination: Combination,
    crew: Crew,
) -> Smallest:
    if combination.method != "ties" or combination.density is None:
        return {}
    found: dict[tuple[Matrix, int], float] = {}
    density = combination.density

    def look(matrix: Matrix, number: int) -> None:
        member, stretches = members[number], lying[matrix]
        # As PEFT counts them (utils/merge_utils.py, magnitude_based_pruning).
        count = int(density * math.prod(member.shape(matrix.weight)))
        found[matrix, number] = threshold(lambda: _blocks(base, member, matrix, stretches), count)

    jobs: list[Future[None]] = [
        crew.compute(functools.partial(look, matrix, number))
        for matrix in lying
        for number, member in enumerate(members)
        if member.adapts(matrix.weight)
    ]
    for job in jobs:
        job.result()
    return found


def _blocks(
    base: Checkpoint, member: Member, matrix: Matrix, stretches: Sequence[Stretch]
) -> Iterator[torch.Tensor]:
    """A matrix's change, in the very blocks in which it will be merged: others may differ in the last bit."""
    for stretch in stretches:
        file, width = base.place[stretch.disk], base.entry(stretch.disk).matrix[1]
        change = member.start(matrix, stretch.part)
        for first, count in blocks(stretch.rows, width):
            yield change(file.read_rows(stretch.disk, stretch.first + first, count), first)


@dataclass(frozen=True)
class _Making:
    """What the pieces are made of."""

    base: Checkpoint
    members: Sequence[Member]
    combination: Combination
    smallest: Smallest

    def piece(self, matrix: Matrix, stretch: Stretch) -> Piece:
        """What becomes of a stretch."""
        numbers = [number for number, each in enumerate(self.members) if each.adapts(matrix.weight)]
        if not numbers:
            return Piece(matrix.weight, stretch.rows)
        return Piece(
            matrix.weight, stretch.rows, functools.partial(self._begin, matrix, stretch.part, numbers)
        )

    def _begin(self, matrix: Matrix, part: Part, numbers: Sequence[int]) -> Compute:
        thinned = [self._thinned(matrix, part, number) for number in numbers]
        weights = [self.combination.weights[number] for number in numbers]
        combine = elected if self.combination.method.endswith("ties") else added

        def compute(stored: torch.Tensor, first: int) -> torch.Tensor:
            changed = combine([each(stored, first) for each in thinned], weights)
            return changed.add_(stored.float())

        return compute

    def _thinned(self, matrix: Matrix, part: Part, number: int) -> Compute:
        """One adapter's change of the rows, with what does not stay set to 0."""
        member, density = self.members[number], self.combination.density
        change = member.start(matrix, part)
        if density is None:
            return change
        if self.combination.method in DRAWN:
            stays = self._drawn(matrix, part, number, density)
            return lambda base, first: change(base, first).mul_(stays(base, first)).div_(density)
        smallest = self.smallest[matrix, number]

        def trimmed(base: torch.Tensor, first: int) -> torch.Tensor:
            changed = change(base, first)
            return changed.mul_(changed.abs() >= smallest)

        return trimmed

    def _drawn(self, matrix: Matrix, part: Part, number: int, density: float) -> Compute:
        """Which elements of the rows stay: drawn in the order of the class's rows."""
        rows, width = self.members[number].shape(matrix.weight)
        key = drawing_key(self.combination.seed or 0, number, matrix.weight, matrix.expert)
        if part.transposed:
            turned = kept(key, 0, (rows, width), density).T
            return lambda base, first: turned[first : first + len(base)]
        before = part.rows[0] if part.rows else 0
        return lambda base, first: kept(key, (before + first) * width, (len(base), width), density)
