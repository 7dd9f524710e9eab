"""What a training would do and take, without loading weights or starting anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.adapter import choose_trained
from finetune.encoder import check_rows, check_taught, row_encoder
from finetune.experts import experts_way
from finetune.forecast import Forecast
from finetune.gpus import Gpu
from finetune.launcher import Launcher, read_launcher
from finetune.lengths import RowTokens
from finetune.memory import Memory
from finetune.model import load_skeleton
from finetune.new_tokens import read_new_tokens
from finetune.possible import check_possible
from finetune.proposal import Proposal, propose
from lensmith.artifact import Artifact
from lensmith.dataset import read_split
from lensmith.families.family import Tower
from lensmith.recipe import Recipe
from lensmith.train_settings import LoraPart, Train


@dataclass(frozen=True)
class RowsPlan:
    """What the training rows come to, in language-model tokens of one epoch."""

    rows: int
    text_tokens: int
    image_tokens: int
    answer_tokens: int
    longest: RowTokens


@dataclass(frozen=True)
class PacksPlan:
    """How rows are packed.

    passes: forward passes of each process in a step. tokens, image_tokens: at most in a pack of the first
    epoch. mean_tokens: of these packs.
    """

    passes: int
    tokens: int
    image_tokens: int
    mean_tokens: int


@dataclass(frozen=True)
class Plan:
    """A training before it starts.

    packs: None where rows are padded. steps: optimizer steps. parameters: of the whole model; new_tokens: the
    id of each; adapted and trained_parameters by tower. experts: how transformers computes routed ones, None
    without any. memory: of one device, of the longest rows or the largest packs. image_features: what they
    take in host memory where the towers see each image once, bytes; 0 where they see it in every epoch.
    proposals: one for each GPU that was asked about.
    """

    launcher: Launcher
    global_batch: int
    rows: RowsPlan
    packs: PacksPlan | None
    steps: int
    parameters: int
    new_tokens: dict[str, int]
    adapted: dict[LoraPart, int]
    trained_parameters: dict[Tower, int]
    experts: str | None
    memory: Memory
    image_features: int
    proposals: list[Proposal]


def plan(recipe: Recipe, dataset: Artifact, gpus: Sequence[Gpu] = ()) -> Plan:
    """The plan of the recipe's training on `dataset`, and what fits each of `gpus`.

    Reads configuration, tokenizer and rows of the base at `recipe.base.path`, not its weights. Raises
    InputError for rows that are too long, LoRA targets that match nothing, and a launcher config that cannot
    be used: what would also stop the training.
    """
    source = recipe.base.path
    launcher = read_launcher(recipe.train.launcher)
    check_possible(recipe, launcher, dataset)
    skeleton = load_skeleton(source)
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    new = read_new_tokens(source, recipe.train.new_tokens)
    trained = choose_trained(skeleton, recipe, new=new)
    encoder = row_encoder(recipe, source)
    check_taught(new, dataset, encoder)
    counted = list(check_rows(recipe, dataset, source, encoder))
    forecast = Forecast(recipe, dataset, encoder, counted, parameters, trained.parameters, new)
    kept = forecast.kept(recipe.train, launcher)
    return Plan(
        launcher=launcher,
        global_batch=launcher.global_batch(recipe),
        rows=_rows(counted),
        packs=_packs(forecast, recipe.train, launcher),
        steps=_steps(recipe, launcher, len(read_split(dataset, "train").epoch())),
        parameters=parameters,
        new_tokens=new.ids,
        adapted=trained.adapted,
        trained_parameters=trained.parameters,
        experts=experts_way(recipe.model_family),
        memory=forecast.memory(recipe.train, launcher),
        image_features=kept.nbytes if kept else 0,
        proposals=[propose(forecast, recipe.train, launcher, gpu) for gpu in gpus],
    )


def _rows(counted: Sequence[RowTokens]) -> RowsPlan:
    return RowsPlan(
        rows=len(counted),
        text_tokens=sum(each.text for each in counted),
        image_tokens=sum(each.image for each in counted),
        answer_tokens=sum(each.answer for each in counted),
        longest=max(counted, key=lambda each: each.total),
    )


def _packs(forecast: Forecast, train: Train, launcher: Launcher) -> PacksPlan | None:
    plan = forecast.packs(train, launcher)
    if plan is None:
        return None
    rows = forecast.counts[forecast.shown]
    packs = [pack for shared in plan.steps(0) for each in shared for pack in each]
    tokens = [int(rows[pack].sum()) for pack in packs]
    return PacksPlan(
        passes=plan.passes,
        tokens=max(tokens),
        image_tokens=max(int(rows[pack, 1].sum()) for pack in packs),
        mean_tokens=round(sum(tokens) / len(tokens)),
    )


def _steps(recipe: Recipe, launcher: Launcher, rows: int) -> int:
    """As transformers' Trainer counts: batches a process, rounded up at every division."""
    train = recipe.train
    if train.max_steps:
        return train.max_steps
    batches = math.ceil(math.ceil(rows / train.batch_size) / launcher.processes)
    return math.ceil(train.epochs * math.ceil(batches / train.gradient_accumulation))
