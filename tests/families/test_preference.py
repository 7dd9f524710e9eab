"""Pairs of every family: a batch scores each answer as it is scored alone, and the base is the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from finetune.adapter import choose_trained
from finetune.answer_loss import teach_answers_only
from finetune.collate import COLUMN, Collator
from finetune.dry_run import base_of
from finetune.encoded import Encoded
from finetune.encoder import row_encoder
from finetune.preference import score_pairs
from lensmith.recipe import Recipe
from lensmith.row_file import Row
from lensmith.sample import Message, Text
from tests.families.conftest import Checkpoint, Size, row_of, towers_of

pytestmark = pytest.mark.slow


def pair_recipe(checkpoint: Checkpoint) -> Recipe:
    """Objective dpo, on every tower that takes LoRA, routed experts included."""
    adapted = dict.fromkeys(towers_of(checkpoint.family.name, "lora"), "adapt")
    content = checkpoint.recipe("lora", **adapted).model_dump()
    content["train"]["objective"] = "dpo"
    if checkpoint.family.experts is not None:
        content["train"]["lora"]["experts"] = {"rank": 3}
    return Recipe.model_validate(content)


def pair(better: str, worse: str, *sizes: Size) -> Row:
    row = row_of(better, *sizes)
    answer = Message("assistant", (Text(better),), (Text(worse),))
    return replace(row, sample=replace(row.sample, messages=(*row.sample.prompt, answer)))


def one_by_one(model: nn.Module, rows: list[Encoded], collate: Collator) -> Tensor:
    """Nats of each answer, in batches of one row."""
    nats: list[Tensor] = []
    for each in rows:
        given: dict[str, Any] = collate([{COLUMN: replace(each, rejected=None)}])
        labels = given.pop("labels")
        nats.append(model(**given, use_cache=False, answer_labels=labels)[0])
    return torch.stack(nats)


def test_pairs_are_scored_as_each_answer_alone(checkpoint: Checkpoint) -> None:
    recipe = pair_recipe(checkpoint)
    encoder = row_encoder(recipe, checkpoint.root)
    pairs = [
        pair("12", "a longer answer than the other", (200, 100)),
        pair("second", "3", (80, 90), (112, 112)),
    ]
    encoded = [encoder.encode(each) for each in pairs]
    rows = encoded + [each.rejected for each in encoded if each.rejected is not None]
    collate = Collator(encoder.pad_id, checkpoint.family.numbers)
    batch: dict[str, Any] = collate([{COLUMN: each} for each in encoded])
    labels = batch.pop("labels")

    base = checkpoint.load().eval()
    teach_answers_only(base)
    model = choose_trained(checkpoint.load(), recipe).model
    assert isinstance(model, PeftModel)
    teach_answers_only(base_of(model))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter.normal_(0.0, 0.03, generator=generator)
        scored = score_pairs(model.eval(), model, {**batch, "use_cache": False, "answer_labels": labels})
        alone, reference = one_by_one(model, rows, collate), one_by_one(base, rows, collate)
    torch.testing.assert_close(scored.policy, alone, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(scored.reference, reference, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(alone, reference, atol=1e-2), "the adapter changes nothing"
    assert scored.answers.tolist() == [int((each.labels[1:] >= 0).sum()) for each in rows]
