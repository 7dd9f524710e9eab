"""Which rows share a forward pass: planned before the first step, from what each row costs in tokens.

An optimizer step learns from the rows that it would learn from without packing, in the same order of steps: a
packed run is the same run. Only how they are shared out differs: every process gets the same number of packs,
none longer than asked for, as equal in work as they come.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Sampler

from finetune.launcher import Launcher
from lensmith.errors import InputError
from lensmith.families.experts import value_at
from lensmith.families.family import Family, Tower
from lensmith.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pack = list[int]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """What all packs of a run follow from, the same in every process.

    tokens: int64 [rows of an epoch], of each row in the language model. work: int64 likewise, tokens plus
    what its images take in the vision tower, in tokens. length: most tokens of a pack. rows: of an optimizer
    step. processes: that share a step. seed: of the row order.
    """

    tokens: Whole
    work: Whole
    length: int
    rows: int
    processes: int
    seed: int

    def steps(self, epoch: int) -> list[list[int]]:
        """The rows of each optimizer step, as accelerate's SeedableRandomSampler orders an unpacked epoch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.tokens), generator=generator).tolist()
        return [order[start : start + self.rows] for start in range(0, len(order), self.rows)]

    def share(self, rows: list[int], passes: int) -> list[list[Pack]] | None:
        """The packs of a step: of each of `passes` forward passes, one a process. None where they do not fit.

        The hardest row first, each to the pack with the least work that has room for it. A pack that no row
        was left for is empty.
        """
        packs: list[Pack] = [[] for _ in range(passes * self.processes)]
        room = [self.length] * len(packs)
        least = [(0, place) for place in range(len(packs))]
        for row in sorted(rows, key=lambda row: (-self.work[row], row)):
            passed: list[tuple[int, int]] = []
            need = int(self.tokens[row])
            while least and room[least[0][1]] < need:
                passed.append(heapq.heappop(least))
            if not least:
                return None
            work, place = least[0]
            packs[place].append(row)
            room[place] -= need
            heapq.heapreplace(least, (work + int(self.work[row]), place))
            for each in passed:
                heapq.heappush(least, each)
        # Those that run at the same time are the most alike; the largest come first, so memory shows at once.
        packs.sort(key=lambda pack: -sum(int(self.work[row]) for row in pack))
        place_of = {row: place for place, row in enumerate(rows)}
        alike = [packs[start : start + self.processes] for start in range(0, len(packs), self.processes)]
        return [[sorted(pack, key=place_of.__getitem__) for pack in each] for each in alike]


@dataclass(frozen=True)
class PackPlan:
    """A packing with each process's forward passes: `passes` in a step, `last` in an epoch's last one."""

    packing: Packing
    passes: int
    last: int

    def steps(self, epoch: int) -> Iterator[list[list[Pack]]]:
        """The packs of each step of an epoch, as `Packing.share` gives them."""
        steps = self.packing.steps(epoch)
        for number in range(len(steps)):
            yield self.shared(steps, number)

    def shared(self, steps: list[list[int]], number: int) -> list[list[Pack]]:
        """The packs of the `number`th of an epoch's `steps`."""
        shared = self.packing.share(steps[number], self.passes if number < len(steps) - 1 else self.last)
        if shared is None:
            raise RuntimeError(f"step {number} was not planned")
        return shared

    @property
    def passes_an_epoch(self) -> int:
        """Forward passes of each process."""
        return (len(self.packing.steps(0)) - 1) * self.passes + self.last


def plan_run(
    recipe: Recipe, launcher: Launcher, counts: Whole, shown: list[int], image_work: float
) -> PackPlan:
    """The packs of a whole training.

    counts: int64 [rows, 3], of text, images and answer, of every training row; shown: those of an epoch, some
    of them more than once. image_work: as the function of this name gives it.
    """
    train, seen = recipe.train, counts[shown]
    tokens = seen.sum(axis=1)
    work = tokens + np.rint(seen[:, 1] * image_work).astype(np.int64)
    rows = launcher.global_batch(recipe)
    packing = Packing(tokens, work, train.pack_length, rows, launcher.processes, train.seed)
    steps = -(-len(shown) // rows)
    epochs = -(-train.max_steps // steps) if train.max_steps else math.ceil(train.epochs)
    return plan_packs(packing, epochs)


def image_work(model: PreTrainedModel, family: Family, patches: int) -> float:
    """What an image token takes in the vision tower, in tokens of the language model.

    By the weights that a token meets there, of routed experts those that answer for it; `patches` are merged
    into a token. `model` may lie on the meta device.
    """
    weights: dict[Tower, int] = {"vision": 0, "connector": 0, "language": 0}
    for name, module in model.named_modules():
        # The output head, whose name has no dot, sees answers only.
        if isinstance(module, nn.Linear) and "." in name:
            weights[family.tower_of(name)] += module.in_features * module.out_features
    if family.experts is not None:
        config = model.config.to_dict()
        for name in family.experts.fused(config):
            expert = math.prod(model.get_parameter(name).shape[1:])
            weights["language"] += expert * value_at(config, family.experts.chosen)
    return weights["vision"] * patches / weights["language"]


def plan_packs(packing: Packing, epochs: int) -> PackPlan:
    """The least forward passes with which every step of `epochs` epochs fits.

    Raises InputError where there is no row.
    """
    if not len(packing.tokens):
        raise InputError("there is no row to pack")
    if int(packing.tokens.max()) > packing.length:
        raise ValueError(f"a row of {packing.tokens.max()} tokens in packs of {packing.length}")
    planned = [packing.steps(epoch) for epoch in range(epochs)]
    last = _passes(packing, [steps[-1] for steps in planned])
    # The trainer ends a step after so many passes, an epoch's last one too: it may have fewer, never more.
    passes = _passes(packing, [step for steps in planned for step in steps[:-1]], last)
    return PackPlan(packing, passes, last)


def _passes(packing: Packing, steps: list[list[int]], least: int = 1) -> int:
    """The least from `least` on with which all of `steps` fit; with as many packs as rows they do."""
    largest = max((int(packing.tokens[step].sum()) for step in steps), default=1)
    passes = max(least, -(-largest // (packing.length * packing.processes)))
    while any(packing.share(step, passes) is None for step in steps):
        passes += 1
    return passes


@dataclass(frozen=True)
class PackPlace:
    """A forward pass of a process: the `number`th of an epoch. Its pack is not planned yet."""

    epoch: int
    number: int


class PackSampler(Sampler[list[PackPlace]]):
    """The forward passes of an epoch, one a batch; nothing is planned for those that a resume skips."""

    def __init__(self, plan: PackPlan) -> None:
        self.plan = plan
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go on with the passes of `epoch`."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[PackPlace]]:
        for number in range(len(self)):
            yield [PackPlace(self.epoch, number)]

    def __len__(self) -> int:
        return self.plan.passes_an_epoch


class Rows(Protocol):
    """Rows by their numbers, several at once."""

    def __getitems__(self, keys: list[int]) -> list[Any]: ...


class PackRows:
    """One process's packs as a data set: the rows of the pack at a place. An empty pack is row `filler`."""

    def __init__(self, rows: Rows, plan: PackPlan, process: int, filler: int) -> None:
        self.rows = rows
        self.plan = plan
        self.process = process
        self.filler = filler
        self._order: tuple[int, list[list[int]]] = (-1, [])
        self._step: tuple[tuple[int, int], list[list[Pack]]] = ((-1, -1), [])

    def pack(self, place: PackPlace) -> Pack:
        """The numbers of the rows in the pack at `place`."""
        step, turn = divmod(place.number, self.plan.passes)
        if self._order[0] != place.epoch:
            self._order = (place.epoch, self.plan.packing.steps(place.epoch))
        if self._step[0] != (place.epoch, step):
            self._step = ((place.epoch, step), self.plan.shared(self._order[1], step))
        return self._step[1][turn][self.process] or [self.filler]

    def __getitems__(self, places: list[PackPlace]) -> list[Any]:
        """The rows of the packs at `places`."""
        return self.rows.__getitems__([row for place in places for row in self.pack(place)])

    def __len__(self) -> int:
        return self.plan.passes_an_epoch


class PackLoader(DataLoader[object]):
    """A loader whose batches are packs; the trainer tells it the epoch, as it tells accelerate's."""

    def set_epoch(self, epoch: int) -> None:
        """Go on with the packs of `epoch`."""
        if isinstance(self.batch_sampler, PackSampler):
            self.batch_sampler.set_epoch(epoch)
