"""The encoder that a recipe and a checkpoint ask for, and the check of all rows before any is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import GenerationConfig

from finetune.lengths import RowTokens, check_lengths
from finetune.model import load_processor
from finetune.new_tokens import NewTokens
from finetune.rows import RowEncoder
from lensmith.artifact import Artifact
from lensmith.counting import Counts
from lensmith.dataset import read_split
from lensmith.errors import InputError, Problem
from lensmith.recipe import Recipe
from lensmith.row_file import Row
from lensmith.tokens import Grid, read_grid

# Rows in memory, images included, while their tokens are counted.
_BATCH = 64


def row_encoder(recipe: Recipe, source: Path) -> RowEncoder:
    """The encoder of the checkpoint at `source` under the recipe's objective, pixels and longest row."""
    ends = GenerationConfig.from_pretrained(source, local_files_only=True).eos_token_id
    processor = load_processor(source, recipe.pixel_budget, recipe.train.new_tokens)
    end_ids = ends if isinstance(ends, list) else [ends] if ends is not None else []
    end_ids = [*end_ids, processor.tokenizer.eos_token_id]
    pairs = recipe.train.objective == "dpo"
    return RowEncoder(processor, recipe.rendering, end_ids, recipe.train.max_length, pairs=pairs)


def check_rows(
    recipe: Recipe, dataset: Artifact, source: Path, encoder: RowEncoder, first: int = 0, every: int = 1
) -> Iterator[RowTokens]:
    """What each training row costs, or every `every`th from `first`, so that processes can share the work.

    For objective dpo each costs what it does with the longer of its two answers. Raises InputError, when all
    are read, naming the rows that are longer than the recipe allows, or have no rejected answer.
    """
    grid = read_grid(source, recipe.model_family, recipe.pixel_budget)
    rows = read_split(dataset, "train")
    mine = (rows[number] for number in range(first, len(rows), every))
    alone: list[str] = []
    if encoder.pairs:
        mine = _noted(mine, alone)
    return check_lengths(_tokens(mine, encoder, grid), recipe.train.max_length, alone)


def check_taught(new: NewTokens, dataset: Artifact, encoder: RowEncoder) -> None:
    """Raise InputError for new tokens that no training row holds: misspelt, or never to be learned.

    Reads rows, without their images, until each has been met.
    """
    missing = {number: token for token, number in new.ids.items()}
    samples = read_split(dataset, "train").samples()
    while missing and (sample := next(samples, None)):
        rendered = encoder.render(sample)
        for number in (*rendered.prompt_ids, *rendered.answer_ids):
            missing.pop(number, None)
    if missing:
        mend = "spell it as the rows do, or leave it out"
        problems = [Problem("stands in no training row", repr(token), mend) for token in missing.values()]
        raise InputError("train.new_tokens has tokens that nothing would teach", problems)


def count_rows(
    recipe: Recipe, dataset: Artifact, source: Path, encoder: RowEncoder, state: PartialState
) -> Counts:
    """What every training row costs, int64 [rows, 3] of text, images and answer. Processes share the work.

    Raises InputError as `check_rows` does.
    """
    counts = torch.zeros((len(read_split(dataset, "train")), 3), dtype=torch.int64)
    first, every = state.process_index, state.num_processes
    for number, each in enumerate(check_rows(recipe, dataset, source, encoder, first, every)):
        counts[first + number * every] = torch.tensor([each.text, each.image, each.answer])
    # Each row was counted by one process: their sum is what all of them know.
    return torch.as_tensor(reduce(counts.to(state.device), "sum")).cpu().numpy()


def _noted(rows: Iterator[Row], alone: list[str]) -> Iterator[Row]:
    """`rows`; those without a rejected answer are added to `alone`."""
    for row in rows:
        if not row.sample.rejected:
            alone.append(row.sample.id)
        yield row


def _tokens(rows: Iterator[Row], encoder: RowEncoder, grid: Grid) -> Iterator[RowTokens]:
    while batch := list(islice(rows, _BATCH)):
        yield from encoder.tokens_of(batch, grid)
