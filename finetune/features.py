"""Image features: what frozen towers make of the training images, computed once and kept in host memory."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from finetune.collate import EncodedRows, image_tensors
from finetune.encoded import Encoded, Features
from finetune.launcher import Launcher
from finetune.model import DTYPES, in_dtype
from finetune.patches import patches_as_products
from finetune.trainer import AnswerTrainer
from lensmith.counting import Counts
from lensmith.progress import Progress
from lensmith.recipe import Recipe
from lensmith.units import GIB

# Image tokens that the towers see at a time; a picture of more is seen by itself. A small one takes a tower
# as long as several do, and without gradients these take less memory than a step.
TOKENS = 2048
Numbers = tuple[tuple[str, str], ...]
Row = TypeVar("Row")


class _Output(Protocol):
    """What a class of these families gives: a tensor an image, or one of all, and the same of each level."""

    pooler_output: Sequence[Tensor] | Tensor


class _Encoder(Protocol):
    def get_image_features(self, **given: Tensor) -> _Output: ...


def may_keep(recipe: Recipe, launcher: Launcher, model: PreTrainedModel, shown: Sequence[int]) -> bool:
    """Whether the images' features are the same in every epoch, and are needed more than once.

    shown: the rows of an epoch. Not on several processes, which share the rows out anew in every epoch, nor
    under ZeRO-3 or FSDP2, whose weights are whole during the trainer's own passes only.
    """
    train = recipe.train
    frozen = {"vision", "connector"} <= set(train.towers.in_mode("freeze"))
    taught = train.max_steps * launcher.global_batch(recipe) or train.epochs * len(shown)
    # A pair shows its images with both answers, to the model and to its reference.
    again = taught * (4 if train.objective == "dpo" else 1) > len(set(shown))
    alone = launcher.processes == 1 and not launcher.divides_weights
    return bool(train.image_features_gib) and frozen and again and alone and not drops(model)


def drops(model: PreTrainedModel) -> bool:
    """Whether the vision tower leaves anything out by chance: its features differ from pass to pass."""
    vision = model.config.to_dict()["vision_config"]
    return any(_rates(vision))


def _rates(config: Mapping[object, object]) -> list[bool]:
    found: list[bool] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            found += _rates(cast(Mapping[object, object], value))
        elif "drop" in str(name):
            found.append(bool(value))
    return found


def image_features(
    model: PreTrainedModel, rows: Sequence[Encoded], dtype: torch.dtype, numbers: Numbers = ()
) -> list[Encoded]:
    """`rows`, each with an image, with features in place of pixels, which are read in `dtype`; on the CPU.

    numbers: as in `Family.numbers`. To the last bits features depend on the rows that stand beside. A
    rejected answer shares its row's.
    """
    encoder = cast(_Encoder, model.base_model)
    wanted = inspect.signature(encoder.get_image_features).parameters
    joined = image_tensors(rows, numbers)
    given = {name: values.to(model.device) for name, values in joined.items() if name in wanted}
    with torch.no_grad(), patches_as_products(model):
        output = encoder.get_image_features(**in_dtype(given, dtype))
    levels = cast(Mapping[str, Sequence[Sequence[Tensor]]], output).get("deepstack_features", ())
    shares = [
        _shared_out(level, [each.pictures for each in rows]) for level in (output.pooler_output, *levels)
    ]
    made = [Features(pooled, tuple(deep)) for pooled, *deep in zip(*shares, strict=True)]
    return [_without_pixels(row, features) for row, features in zip(rows, made, strict=True)]


def _without_pixels(row: Encoded, features: Features) -> Encoded:
    rest = {name: values for name, values in row.images.items() if not values.is_floating_point()}
    seen = replace(row, images=rest, features=features)
    if row.rejected is None:
        return seen
    return replace(seen, rejected=replace(row.rejected, images=rest, features=features))


def _shared_out(
    output: Sequence[Tensor] | Tensor, pictures: Sequence[int]
) -> list[tuple[Tensor, ...] | Tensor]:
    """Each row's part of what the towers made of all images. A part of a larger tensor would keep all of it
    alive."""
    if len(output) != sum(pictures):
        raise ValueError(f"the vision tower made features of {len(output)} images, not of {sum(pictures)}")
    ends = list(itertools.accumulate(pictures))
    parts = [output[end - number : end] for end, number in zip(ends, pictures, strict=True)]
    return [
        part.cpu().clone() if isinstance(part, Tensor) else tuple(each.cpu().clone() for each in part)
        for part in parts
    ]


def groups(rows: Iterable[tuple[int, Row]], image_tokens: Sequence[int]) -> Iterator[dict[int, Row]]:
    """Rows by number, as many at a time as `TOKENS` allows, the first one by itself. The same at every start:
    what a resumed run is given does not differ in a bit."""
    group: dict[int, Row] = {}
    tokens, most = 0, 0
    for number, row in rows:
        if group and tokens + image_tokens[number] > most:
            yield group
            group, tokens, most = {}, 0, TOKENS
        group[number] = row
        tokens += image_tokens[number]
    yield group


def in_order(shown: Sequence[int], image_tokens: Sequence[int]) -> list[int]:
    """The rows of an epoch that `shown` names, each once, as they are seen: the one with most image tokens
    first, from which the memory of all is told."""
    # The first row is also the one that fills a pack which has none.
    numbers = sorted({0, *shown})
    largest = max(numbers, key=lambda number: image_tokens[number])
    return [largest, *(number for number in numbers if number != largest)]


def all_of(size: int, largest: int, numbers: Sequence[int], image_tokens: Sequence[int]) -> float:
    """What all rows would take in memory where the largest one takes `size`, bytes."""
    return size / image_tokens[largest] * sum(image_tokens[number] for number in numbers)


def _copied(row: Encoded) -> Encoded:
    """`row` in memory of this process alone: each tensor of a loader's worker holds a file open."""
    tokens, images = (
        {name: each.clone() for name, each in some.items()} for some in (row.tokens, row.images)
    )
    positions = None if row.positions is None else row.positions.clone()
    rejected = None if row.rejected is None else replace(_copied(row.rejected), images=images)
    return replace(
        row,
        tokens=tokens,
        labels=row.labels.clone(),
        images=images,
        positions=positions,
        rejected=rejected,
    )


def keep_features(trainer: AnswerTrainer, launcher: Launcher, rows: EncodedRows, counts: Counts) -> int:
    """Keep the features of every row of an epoch where `may_keep` says so: bytes of all.

    counts: int64 [rows, 3], of text, images and answer. 0 where they stay out, also where they would take
    more than the recipe allows: then stderr says so.
    """
    recipe, arguments, shown = trainer.recipe, trainer.args, rows.rows.epoch()
    model = trainer.base
    if not may_keep(recipe, launcher, model, shown):
        return 0
    image_tokens: list[int] = counts[:, 1].tolist()
    numbers = in_order(shown, image_tokens)
    largest = numbers[0]
    if not image_tokens[largest]:
        return 0
    dtype = DTYPES[recipe.train.dtype]
    if model.device != arguments.device:
        nn.Module.to(model, arguments.device)
    loader = DataLoader(
        numbers,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=rows.encoded,  # pyright: ignore[reportArgumentType]
        num_workers=arguments.dataloader_num_workers,
        # The trainer's order of rows is drawn from torch's own.
        generator=torch.Generator(),
    )
    loaded = ((number, _copied(row)) for number, row in loader) if loader.num_workers else loader
    size, most = 0, recipe.train.image_features_gib * GIB
    with trainer.compute_loss_context_manager(), Progress("image features", total=len(numbers)) as progress:
        for group in groups(loaded, image_tokens):
            seen = {number: row for number, row in group.items() if row.pictures}
            if seen:
                made = image_features(model, list(seen.values()), dtype, recipe.model_family.numbers)
                group |= zip(seen, made, strict=True)
            size += sum(each.nbytes for each in group.values())
            if largest in group and (whole := all_of(size, largest, numbers, image_tokens)) > most:
                _say_too_many(whole, recipe.train.image_features_gib)
                return 0
            rows.kept |= group
            progress.add(len(group))
    # Nothing is left to read or decode beside the steps.
    arguments.dataloader_num_workers, arguments.dataloader_persistent_workers = 0, False
    return size


def _say_too_many(size: float, allowed: float) -> None:
    text = f"{size / GIB:.1f} GiB, train.image_features_gib is {allowed:g}: they are made in every epoch"
    print(f"  the images' features would take {text}", file=sys.stderr)
