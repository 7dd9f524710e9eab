"""Whether a training fits a GPU, and the fastest setting of it that does."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.forecast import Forecast
from finetune.gpus import Gpu
from finetune.launcher import Launcher
from finetune.memory import Memory
from finetune.setting import Setting, changes, costs, setting_of, settings
from lensmith.train_settings import Train


@dataclass(frozen=True)
class Proposal:
    """What a GPU can do with a recipe.

    spare: bytes that the recipe as it is leaves free beside the reserve, below 0 where it does not fit.
    setting: the fastest one that fits, with its memory; None where none does. changes: by key of the recipe
    or launcher config, its value; reasons: by key, why it is slower than as it is.
    """

    gpu: Gpu
    spare: int
    setting: Setting | None
    memory: Memory | None
    changes: dict[str, str]
    reasons: dict[str, str]

    @property
    def fits(self) -> bool:
        """Whether the recipe fits as it is."""
        return self.spare >= 0


def propose(forecast: Forecast, train: Train, launcher: Launcher, gpu: Gpu) -> Proposal:
    """The proposal for `gpu` of a training that the recipe states as `train` and `launcher`."""

    def spare(setting: Setting) -> int:
        return gpu.memory - forecast.memory(setting.train(train), setting.launcher(launcher)).needed

    def most(of_a_kind: Sequence[Setting]) -> Setting | None:
        """The fastest one that fits, of settings that differ in how many tokens a pass has."""
        smallest_first = of_a_kind[::-1]
        # Mostly all of them fit, or none does.
        if not smallest_first or spare(smallest_first[0]) < 0:
            return None
        many = bisect.bisect_left(smallest_first, True, key=lambda each: spare(each) < 0)
        return smallest_first[many - 1]

    now = setting_of(train, launcher, forecast.lengths)
    every = settings(train, launcher, forecast.lengths, packs=forecast.may_pack(train))
    best = None
    # Settings that differ in what a pass takes alone follow each other.
    for _, group in itertools.groupby(every, key=lambda each: each.speed[:-1]):
        alike = list(group)
        best = most([each for each in alike if each.pack_length])
        padded = [each for each in alike if not each.pack_length]
        best = most([each for each in padded if not best or each.speed < best.speed]) or best
        if best:
            break
    return Proposal(
        gpu=gpu,
        spare=spare(now),
        setting=best,
        memory=forecast.memory(best.train(train), best.launcher(launcher)) if best else None,
        changes=changes(now, best) if best else {},
        reasons=costs(now, best) if best else {},
    )
