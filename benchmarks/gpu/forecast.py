"""The memory that `lensmith plan` would predict for our side, to be held against what a GPU took."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.sides import Prepared
from finetune.adapter import choose_trained
from finetune.answer_loss import LOGITS
from finetune.documents import attend_per_document
from finetune.dry_run import dry_step
from finetune.encoded import IGNORED
from finetune.memory import training_memory
from finetune.model import DTYPES


def planned_bytes(given: Prepared, trainer: Any) -> int:
    """At most at a time, in training on the largest pack of `trainer`, which is our side's."""
    recipe, plan = given.recipe, trainer.packs
    tokens = given.counts.sum(axis=1)
    packs = (pack for shared in plan.steps(0) for each in shared for pack in each)
    largest = max(packs, key=lambda pack: tokens[pack].sum())
    batch = trainer.data_collator([trainer.train_dataset[row] for row in largest])
    bare = given.bare()
    parameters = sum(each.numel() for each in bare.parameters())
    vocabulary = int(bare.config.get_text_config().vocab_size)
    attend_per_document(bare)
    chosen = choose_trained(bare, recipe)
    trained = sum(chosen.parameters.values())
    step = dry_step(
        chosen.model,
        {name: each for name, each in batch.items() if isinstance(each, Tensor)},
        recomputed=recipe.train.recomputed,
        autocast=DTYPES[recipe.train.dtype] == torch.bfloat16,
    )
    answers = int((batch["labels"][:, 1:] != IGNORED).sum())
    pieces = max(1, math.ceil(answers * vocabulary / LOGITS))
    logits = math.ceil(answers / pieces) * vocabulary * DTYPES[recipe.train.dtype].itemsize
    whole = parameters + (trained if recipe.train.adapts else 0)
    memory = training_memory(recipe.train, given.launcher, whole, trained, step, logits, plan.passes)
    return memory.total
