"""Method full: the run's whole checkpoint, in the base's keys, dtypes and shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from finetune.layout import Places
from finetune.merging.checkpoint import Checkpoint
from finetune.merging.tied import EMBEDDING
from lensmith.errors import InputError, Problem
from lensmith.families.layout import Layout


@dataclass(frozen=True)
class TrainedWeights:
    """The tensors of a run's checkpoint as the base has them on disk.

    transformers 5.20 writes published names, but fused experts as its class has them, and a tensor that was
    joined from two it cuts in the middle.
    """

    file: Checkpoint
    base: Checkpoint
    layout: Layout
    places: Places

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in which `read` gives the tensor."""
        shape = self.file.entry(name).shape
        if self._turned(name):
            return (*shape[:-2], shape[-1], shape[-2])
        if pair := self._pair(name):
            rows, first = sum(self.file.entry(each).shape[0] for each in pair), self.base.entry(pair[0])
            return (first.shape[0] if name == pair[0] else rows - first.shape[0], *shape[1:])
        return shape

    def read(self, name: str) -> torch.Tensor:
        """The run's tensor of a name on disk, in its own dtype."""
        if pair := self._pair(name):
            whole = torch.cat([self.file.place[each].read(each) for each in pair])
            rows = self.base.entry(pair[0]).shape[0]
            return whole[:rows] if name == pair[0] else whole[rows:]
        tensor = self.file.place[name].read(name)
        return tensor.transpose(-2, -1) if self._turned(name) else tensor

    def _turned(self, name: str) -> bool:
        # As transformers decides when it loads: by the shape.
        turned = any(part.transposed for part in self.places.get(name, ()))
        return turned and self.file.entry(name).shape != self.base.entry(name).shape

    def _pair(self, name: str) -> tuple[str, str] | None:
        return next(((cut.first, cut.rest) for cut in self.layout.cut if name in (cut.first, cut.rest)), None)


def check_full(trained: TrainedWeights, base: Checkpoint, tied: str | None) -> None:
    """Refuse (InputError) a checkpoint that has not exactly the base's tensors in their shapes, all finite.

    A tied head may be stored on either side or not at all.
    """
    problems: list[Problem] = []
    there = trained.file.place
    for name in sorted(base.place.keys() | there.keys()):
        if name == tied and (name not in base.place or name not in there):
            continue
        if name not in there:
            problems.append(Problem("the base has it, the run has not", name))
        elif name not in base.place:
            problems.append(Problem("the run has it, the base has not", name))
        elif trained.shape(name) != base.entry(name).shape:
            problems.append(
                Problem(f"is {list(trained.shape(name))}, the base's {list(base.entry(name).shape)}", name)
            )
        elif not torch.isfinite(there[name].read(name)).all():
            problems.append(Problem("holds NaN or infinite values", name))
    if problems:
        raise InputError(f"the weights in {trained.file.root} do not fit the base", problems[:20])


def full_weights(
    trained: TrainedWeights, base: Checkpoint, tied: str | None
) -> Callable[[str], torch.Tensor]:
    """What the base's tensor of a name becomes: the run's, rounded to the base's dtype."""

    def changed(name: str) -> torch.Tensor:
        source = name
        if name == tied and name not in trained.file.place:
            source = next(each for each in trained.file.place if each.endswith(EMBEDDING))
        return trained.read(source).to(base.place[name].read(name).dtype)

    return changed
