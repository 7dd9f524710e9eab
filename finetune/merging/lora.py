"""What an adapter makes of a base's tensors."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

from finetune.layout import Part
from finetune.merging.adapter import Adapter, Delta, check_values, read_adapter
from finetune.merging.change import Compute, Piece, Plan
from finetune.merging.checkpoint import Checkpoint
from finetune.merging.experts import ExpertLowRank, expert_low_rank, layer_pattern
from finetune.merging.late import torch
from finetune.merging.slots import Slot, Slots, Wanted, find_slots
from finetune.merging.start import Lying, Start, start_of
from finetune.merging.tied import EMBEDDING, tied_head
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family


def plan_lora(base: Checkpoint, family: Family, run: Path) -> Plan:
    """Every weight that the adapter in `run` has a part of, and every one that was trained on in 4 bits.

    Raises InputError for an adapter that cannot be merged whole or belongs to another base; the plan's check
    for one that is broken.
    """
    adapter = read_adapter(run, family.experts)
    tied = tied_head(base.root)
    check_head(adapter, tied)
    _check_whole(adapter, tied, family)
    start = start_of(run)
    wanted = {name: Wanted(None, name) for name in start.changed}
    wanted |= {name: Wanted(None, rows.tensor) for name, rows in adapter.rows.items()}
    wanted |= {
        name: Wanted(adapter.file.entries[each.tensor].shape, each.tensor)
        for name, each in adapter.whole.items()
    }
    wanted |= wanted_by(adapter)
    slots = find_slots(wanted, base, family)
    _check_rows(adapter, slots, base)
    making = _Making(adapter, start, expert_low_rank(adapter.file, adapter.experts))
    changes: dict[str, list[Piece]] = {}
    for disk, each in slots.items():
        changes[disk] = []
        at = 0
        for slot in each:
            changes[disk] += making.pieces(slot, Lying(base.place[disk], disk, at, slot.rows))
            at += slot.rows
    # What the adapter itself says, where it does; not what was planned.
    expected = {name: math.prod(each.shape) for name, each in wanted.items() if each.shape}
    for disk, each in slots.items():
        for slot in each:
            if slot.part.name in start.changed - expected.keys():
                expected[slot.part.name] = slot.rows * base.entry(disk).matrix[1]
    for name, rows in adapter.rows.items():
        expected[name] = math.prod(adapter.file.entries[rows.tensor].shape)
        # The embeddings under a second name: a tied head that is stored all the same.
        if tied and tied in base.place:
            changes[tied] = rows.pieces(tied, adapter.file, 0, base.entry(tied).shape[0])
            expected[tied] = expected[name]
    return Plan(changes, expected, functools.partial(check_values, adapter))


@dataclass(frozen=True)
class _Making:
    """What the pieces are made of."""

    adapter: Adapter
    start: Start
    expert: ExpertLowRank

    def pieces(self, slot: Slot, lying: Lying) -> list[Piece]:
        """Those of a slot, which lies there."""
        part, shape = slot.part, lying.file.entries[lying.disk].shape
        if part.name in self.adapter.experts:
            if part.expert is not None:
                return [self._expert(part, part.expert, slot.rows)]
            rows = math.prod(shape[1:-1])
            return [self._expert(part, number, rows) for number in range(shape[0])]
        first, end = part.rows or (0, slot.rows)
        if rows := self.adapter.rows.get(part.name):
            return rows.pieces(part.name, self.adapter.file, first, end)
        # Its parts are rows of a matrix, or it is alone in its tensor.
        count = slot.rows if len(shape) == 2 else math.prod(shape[:-1])
        if held := self.adapter.whole.get(part.name):
            return [held.piece(part.name, count, self.adapter.file, part.rows[0] if part.rows else 0)]
        delta = self.adapter.deltas.get(part.name.removesuffix(".weight"))
        in_4_bits, by_rows = part.name in self.start.changed, self.start.by_rows(part.name, lying)
        if delta is None and not in_4_bits:
            return [Piece(part.name, slot.rows)]
        if delta and not delta.magnitude and not in_4_bits:
            return [Piece(part.name, slot.rows, low_rank=functools.partial(self.adapter.low_rank, delta))]
        start = functools.partial(self._begin, part.name, delta, lying)
        return [Piece(part.name, slot.rows, start, whole=in_4_bits and not by_rows, in_turn=by_rows)]

    def _expert(self, part: Part, number: int, rows: int) -> Piece:
        return Piece(part.name, rows, low_rank=functools.partial(self.expert, part, number))

    def _begin(self, name: str, delta: Delta | None, lying: Lying) -> Compute:
        merged = self.adapter.merger(delta) if delta else None
        begun = self.start.of(name, lying)

        def compute(stored: torch.Tensor, first: int) -> torch.Tensor:
            weight = begun(stored, first)
            return merged(weight, first) if merged else weight

        return compute


def wanted_by(adapter: Adapter) -> dict[str, Wanted]:
    """The weights of the class that an adapter has a delta of, by name."""
    shapes = adapter.shapes().items()
    return {name: Wanted(shape, tensor, name in adapter.experts) for name, (shape, tensor) in shapes}


def check_head(adapter: Adapter, tied: str | None) -> None:
    """Refuse (InputError) a delta of an output head that is `tied` to the embeddings."""
    heads = [module for module in adapter.deltas if tied and f"{module}.weight" == tied]
    if heads:
        raise InputError(
            "the adapter changes the output head, which the base ties to its embeddings",
            [Problem("merging it would change the embeddings too", heads[0], "train without the head")],
        )


def _check_whole(adapter: Adapter, tied: str | None, family: Family) -> None:
    """Refuse (InputError) what is held whole and cannot take its place in the base alone."""
    layer = layer_pattern(family.experts) if family.experts else None
    problems: list[Problem] = []
    for name, whole in adapter.whole.items():
        if tied and (name == tied or name.endswith(EMBEDDING)):
            what = "is held whole, and the base ties its output head to its embeddings: both would change"
            problems.append(Problem(what, name, "merge it with the tool that trained it"))
        elif layer and layer.match(name):
            problems.append(Problem("routed experts held whole are not merged", name, "adapt them by LoRA"))
        elif len(adapter.file.entries[whole.tensor].shape) < 2 and any(
            joined.find(name) for joined in family.layout.joined
        ):
            problems.append(Problem("the base keeps this bias joined with others: it is not merged", name))
    if problems:
        raise InputError("the adapter cannot be merged into this base", problems)


def _check_rows(adapter: Adapter, slots: Slots, base: Checkpoint) -> None:
    """Refuse (InputError) rows of new tokens that the base's weight has no place for."""
    problems: list[Problem] = []
    for name, rows in adapter.rows.items():
        (width,) = adapter.file.entries[rows.tensor].shape[1:]
        held = [
            (slot.rows, base.entry(disk).shape[1:])
            for disk, each in slots.items()
            for slot in each
            if slot.part.name == name
        ]
        if any(rest != (width,) for _, rest in held) or max(rows.numbers) >= sum(count for count, _ in held):
            what = f"has row {max(rows.numbers)} of width {width}, the base {held}"
            problems.append(Problem(what, rows.tensor))
        if name.removesuffix(".weight") in adapter.deltas:
            problems.append(Problem("has a delta and rows of new tokens", name))
    if problems:
        raise InputError("the adapter belongs to another base", problems)
