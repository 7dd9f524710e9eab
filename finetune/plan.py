"""What a training would do and take, without loading weights or starting anything."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from finetune.adapter import choose_trained
from finetune.encoder import check_rows, row_encoder
from finetune.launcher import Launcher, check_method, read_launcher
from finetune.memory import Memory, activation_memory, state_memory
from finetune.model import load_skeleton
from finetune.packing import image_work, plan_run
from finetune.rows import RowTokens
from lensmith.artifact import Artifact
from lensmith.dataset import read_split
from lensmith.families.family import Tower
from lensmith.recipe import Recipe
from lensmith.tokens import read_grid
from lensmith.train_settings import LoraPart


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

    packs: None where rows are padded. steps: optimizer steps. parameters: of the whole model; adapted and
    trained_parameters by tower. memory: of one device, of the longest rows or the largest packs.
    """

    launcher: Launcher
    global_batch: int
    rows: RowsPlan
    packs: PacksPlan | None
    steps: int
    parameters: int
    adapted: dict[LoraPart, int]
    trained_parameters: dict[Tower, int]
    memory: Memory


def plan(recipe: Recipe, dataset: Artifact) -> Plan:
    """The plan of the recipe's training on `dataset`.

    Reads configuration, tokenizer and rows of the base at `recipe.base.path`, not its weights. Raises
    InputError for rows that are too long, LoRA targets that match nothing, and a launcher config that cannot
    be used: what would also stop the training.
    """
    source = recipe.base.path
    launcher = read_launcher(recipe.train.launcher)
    check_method(launcher, recipe)
    skeleton = load_skeleton(source)
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    # Activations are counted before the adapter wraps the linears.
    shape = load_skeleton(source)
    trained = choose_trained(skeleton, recipe)
    counted = list(check_rows(recipe, dataset, source, row_encoder(recipe, source)))
    rows = _rows(counted)
    patches = read_grid(source, recipe.model_family, recipe.pixel_budget).patches_a_token
    packs = None
    if recipe.train.pack_length:
        work = image_work(shape, recipe.model_family, patches)
        packs = _packs(recipe, launcher, dataset, counted, work)
    state = state_memory(
        recipe.train,
        launcher,
        parameters + _added(recipe, trained.parameters),
        sum(trained.parameters.values()),
    )
    tokens = _tokens_a_pass(recipe, rows.longest, packs, patches)
    activations = activation_memory(shape, recipe.model_family, recipe.train, tokens, trained.parameters)
    return Plan(
        launcher=launcher,
        global_batch=launcher.global_batch(recipe),
        rows=rows,
        packs=packs,
        steps=_steps(recipe, launcher, len(read_split(dataset, "train").epoch())),
        parameters=parameters,
        adapted=trained.adapted,
        trained_parameters=trained.parameters,
        memory=dataclasses.replace(state, activations=activations),
    )


def _added(recipe: Recipe, trained: dict[Tower, int]) -> int:
    return sum(trained.values()) if recipe.train.method == "lora" else 0


def _rows(counted: list[RowTokens]) -> RowsPlan:
    return RowsPlan(
        rows=len(counted),
        text_tokens=sum(each.text for each in counted),
        image_tokens=sum(each.image for each in counted),
        answer_tokens=sum(each.answer for each in counted),
        longest=max(counted, key=lambda each: each.total),
    )


def _packs(
    recipe: Recipe,
    launcher: Launcher,
    dataset: Artifact,
    counted: list[RowTokens],
    work: float,
) -> PacksPlan:
    counts = np.array([(each.text, each.image, each.answer) for each in counted], np.int64)
    shown = read_split(dataset, "train").epoch()
    plan = plan_run(recipe, launcher, counts, shown, work)
    rows = counts[shown]
    packs = [pack for shared in plan.steps(0) for each in shared for pack in each]
    tokens = [int(rows[pack].sum()) for pack in packs]
    return PacksPlan(
        passes=plan.passes,
        tokens=max(tokens),
        image_tokens=max(int(rows[pack, 1].sum()) for pack in packs),
        mean_tokens=round(sum(tokens) / len(tokens)),
    )


def _tokens_a_pass(
    recipe: Recipe, longest: RowTokens, packs: PacksPlan | None, patches: int
) -> dict[Tower, int]:
    """Tokens that a forward pass of the longest rows, or of the largest packs, feeds to each tower.

    The vision tower sees `patches` for an image token.
    """
    batch = recipe.train.batch_size
    total, image = longest.total * batch, longest.image * batch
    if packs is not None:
        total, image = packs.tokens, packs.image_tokens
    return {"vision": image * patches, "connector": image, "language": total}


def _steps(recipe: Recipe, launcher: Launcher, rows: int) -> int:
    """As transformers' Trainer counts: batches a process, rounded up at every division."""
    train = recipe.train
    if train.max_steps:
        return train.max_steps
    batches = math.ceil(math.ceil(rows / train.batch_size) / launcher.processes)
    return math.ceil(train.epochs * math.ceil(batches / train.gradient_accumulation))
