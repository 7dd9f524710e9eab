"""Method full: the run's whole checkpoint, in the base's keys, dtypes and shards."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass

from finetune.merging.change import Compute, Piece, Plan
from finetune.merging.checkpoint import Checkpoint
from finetune.merging.late import torch
from finetune.merging.tied import EMBEDDING
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family


@dataclass(frozen=True)
class TrainedWeights:
    """The tensors of a run's checkpoint as the base has them on disk. tied: the output head's name where it
    is tied to the embeddings.

    transformers 5.20 writes published names, but fused experts as its class has them, and a tensor that was
    joined from two it cuts in the middle.
    """

    file: Checkpoint
    base: Checkpoint
    family: Family
    tied: str | None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in which `pieces` give the tensor."""
        shape = self.file.entry(name).shape
        if self._turned(name):
            return (*shape[:-2], shape[-1], shape[-2])
        if pair := self._pair(name):
            rows, first = sum(self.file.entry(each).shape[0] for each in pair), self.base.entry(pair[0])
            return (first.shape[0] if name == pair[0] else rows - first.shape[0], *shape[1:])
        return shape

    def pieces(self, name: str) -> list[Piece]:
        """What the base's tensor of a name becomes: the run's, in the run's dtype."""
        entry = self.base.entry(name)
        source = name
        if name == self.tied and name not in self.file.place:
            source = next(each for each in self.file.place if each.endswith(EMBEDDING))
        if self._turned(source):
            count, rows, _ = entry.shape
            return [
                Piece(name, rows, functools.partial(self._expert, source, number)) for number in range(count)
            ]
        return [Piece(name, entry.matrix[0], lambda: functools.partial(self._rows, source))]

    def _rows(self, name: str, base: torch.Tensor, first: int) -> torch.Tensor:
        count = len(base)
        pair = self._pair(name)
        if pair is None:
            return self.file.place[name].read_rows(name, first, count)
        if name != pair[0]:
            first += self.base.entry(pair[0]).shape[0]
        found: list[torch.Tensor] = []
        at = 0
        for each in pair:
            rows = self.file.entry(each).shape[0]
            start, end = max(first - at, 0), min(first + count - at, rows)
            if start < end:
                found.append(self.file.place[each].read_rows(each, start, end - start))
            at += rows
        return torch.cat(found)

    def _expert(self, name: str, number: int) -> Compute:
        _, rows, _ = self.file.entry(name).shape
        turned = self.file.place[name].read_rows(name, number * rows, rows).T
        return lambda base, first: turned[first : first + len(base)]

    def _turned(self, name: str) -> bool:
        # As transformers decides when it loads: by the shape.
        experts = self.family.experts
        if experts is None or experts.stored != "transposed":
            return False
        module = re.escape(self.family.layout.disk_name(experts.module)).replace(r"\{\}", r"\d+")
        fused = re.fullmatch(rf"{module}\.({'|'.join(experts.parameters)})", name)
        return fused is not None and self.file.entry(name).shape != self.base.entry(name).shape

    def _pair(self, name: str) -> tuple[str, str] | None:
        cuts = self.family.layout.cut
        return next(((cut.first, cut.rest) for cut in cuts if name in (cut.first, cut.rest)), None)


def plan_full(trained: TrainedWeights) -> Plan:
    """Every tensor of the base becomes the run's. Raises InputError where they do not fit each other."""
    _check(trained)
    place = trained.base.place
    expected = {name: math.prod(trained.base.entry(name).shape) for name in place}
    return Plan({name: trained.pieces(name) for name in place}, expected)


def _check(trained: TrainedWeights) -> None:
    """Refuse (InputError) a checkpoint that has not exactly the base's tensors in their shapes.

    A tied head may be stored on either side or not at all.
    """
    problems: list[Problem] = []
    base, there = trained.base, trained.file.place
    for name in sorted(base.place.keys() | there.keys()):
        if name == trained.tied and (name not in base.place or name not in there):
            continue
        if name not in there:
            problems.append(Problem("the base has it, the run has not", name))
        elif name not in base.place:
            problems.append(Problem("the run has it, the base has not", name))
        elif trained.shape(name) != base.entry(name).shape:
            problems.append(
                Problem(f"is {list(trained.shape(name))}, the base's {list(base.entry(name).shape)}", name)
            )
    if problems:
        raise InputError(f"the weights in {trained.file.root} do not fit the base", problems[:20])
