"""Image features before any is made: whether a training keeps them, and what they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from finetune.dry_run import dry_features
from finetune.encoded import Encoded
from finetune.features import all_of, groups, in_order, may_keep
from finetune.launcher import Launcher
from finetune.model import DTYPES, shape_in_training
from lensmith.counting import Counts
from lensmith.recipe import Recipe
from lensmith.units import GIB


@dataclass(frozen=True)
class Kept:
    """Features that a training keeps.

    nbytes: of all its rows, in host memory. held: bytes on the device while the towers see the rows that they
    are given at a time, at most.
    """

    nbytes: int
    held: int


def foresee_kept(
    recipe: Recipe,
    launcher: Launcher,
    source: Path,
    bare: PreTrainedModel,
    shown: Sequence[int],
    counts: Counts,
    encode: Callable[[int], Encoded],
) -> Kept | None:
    """What `keep_features` will keep; None where that is nothing. No weights are read.

    bare: the model of the checkpoint at `source`, of shapes alone: where processes have joined under ZeRO-3,
    which keeps nothing, none can be made any more. shown: the rows of an epoch. counts: int64 [rows, 3], of
    text, images and answer. encode: gives a row by its number, with positions where rows are packed.
    """
    if not may_keep(recipe, launcher, bare, shown):
        return None
    image_tokens: list[int] = counts[:, 1].tolist()
    numbers = in_order(shown, image_tokens)
    largest = numbers[0]
    if not image_tokens[largest]:
        return None
    (row,), held = see_dry(recipe, launcher, source, [encode(largest)])
    size = all_of(row.nbytes, largest, numbers, image_tokens)
    if size > recipe.train.image_features_gib * GIB:
        return None
    _, *others = groups(((number, number) for number in numbers), image_tokens)
    most = max(others, key=lambda group: sum(image_tokens[number] for number in group), default={})
    if any(image_tokens[number] for number in most):
        held = max(held, see_dry(recipe, launcher, source, [encode(number) for number in most])[1])
    return Kept(round(size), held)


def see_dry(
    recipe: Recipe, launcher: Launcher, source: Path, rows: Sequence[Encoded]
) -> tuple[list[Encoded], int]:
    """Rows with features of shapes alone in place of pixels, and the bytes that making these holds at most.

    A row without an image stays as it is.
    """
    dtype, divided = DTYPES[recipe.train.dtype], launcher.in_weights_dtype
    seen = [place for place, row in enumerate(rows) if row.pictures]
    if not seen:
        return list(rows), 0
    made, held = dry_features(
        shape_in_training(source, recipe.train, divided=divided),
        [rows[place] for place in seen],
        dtype,
        recipe.model_family.numbers,
        autocast=dtype == torch.bfloat16 and not divided,
    )
    found = dict(zip(seen, made, strict=True))
    return [found.get(place, row) for place, row in enumerate(rows)], held
