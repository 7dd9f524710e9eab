"""Method full: the run's whole checkpoint, in the base's keys, dtypes and shards."""

from __future__ import annotations

from collections.abc import Callable

import torch

from finetune.merging.checkpoint import Checkpoint
from finetune.merging.tied import EMBEDDING
from lensmith.errors import InputError, Problem


def check_full(trained: Checkpoint, base: Checkpoint, tied: str | None) -> None:
    """Refuse (InputError) a checkpoint that has not exactly the base's tensors in their shapes, all finite.

    A tied head may be stored on either side or not at all.
    """
    problems: list[Problem] = []
    for name in sorted(base.place.keys() | trained.place.keys()):
        if name == tied and (name not in base.place or name not in trained.place):
            continue
        if name not in trained.place:
            problems.append(Problem("the base has it, the run has not", name))
        elif name not in base.place:
            problems.append(Problem("the run has it, the base has not", name))
        elif trained.entry(name).shape != base.entry(name).shape:
            problems.append(
                Problem(
                    f"is {list(trained.entry(name).shape)}, the base's {list(base.entry(name).shape)}", name
                )
            )
        elif not torch.isfinite(trained.place[name].read(name)).all():
            problems.append(Problem("holds NaN or infinite values", name))
    if problems:
        raise InputError(f"the weights in {trained.root} do not fit the base", problems[:20])


def full_weights(
    trained: Checkpoint, base: Checkpoint, tied: str | None
) -> Callable[[str], torch.Tensor | None]:
    """What the base's tensor of a name becomes: the run's, rounded to the base's dtype."""

    def changed(name: str) -> torch.Tensor:
        source = name
        if name == tied and name not in trained.place:
            source = next(each for each in trained.place if each.endswith(EMBEDDING))
        return trained.place[source].read(source).to(base.place[name].read(name).dtype)

    return changed
