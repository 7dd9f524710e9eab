"""Image features in place of pixels: every family's model learns the same from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.answer_loss import teach_answers_only
from finetune.collate import COLUMN, FEATURES, Collator, encoder_outputs
from finetune.encoded import Encoded
from finetune.encoder import row_encoder
from finetune.features import drops, image_features
from finetune.model import in_dtype
from tests.families.conftest import Checkpoint, row_of

pytestmark = pytest.mark.slow


def loss(model: PreTrainedModel, collate: Collator, rows: list[Encoded]) -> Tensor:
    batch: dict[str, Any] = collate([{COLUMN: each} for each in rows])
    labels, features = batch.pop("labels"), batch.pop(FEATURES, None)
    given: dict[str, Any] = {**in_dtype(batch, torch.float64)}
    if features is not None:
        given["mm_encoder_outputs"] = encoder_outputs(features)
    return model(**given, answer_labels=labels)[0]


def test_features_teach_what_pixels_teach(checkpoint: Checkpoint) -> None:
    """Rows with two images, one and none; and the mutant, features of another row of the same size."""
    encoder = row_encoder(checkpoint.recipe(language="adapt"), checkpoint.root)
    # In float32 a router may choose another expert where two are as good, for the last bit of a feature.
    model = checkpoint.load().double().train()
    model.set_experts_implementation("eager")
    teach_answers_only(model)
    assert not drops(model)
    collate = Collator(encoder.pad_id, checkpoint.family.numbers)
    sizes = (((96, 64), (64, 160)), ((96, 64),), ((96, 64),), ())
    rows = [encoder.encode(row_of(str(at), *each)) for at, each in enumerate(sizes)]
    numbers = checkpoint.family.numbers
    kept = [*image_features(model, rows[:3], torch.float64, numbers), rows[3]]
    alone = [*(image_features(model, [each], torch.float64, numbers)[0] for each in rows[:3]), rows[3]]
    assert all(not values.is_floating_point() for each in kept for values in each.images.values())
    assert not any(each.features.pooled[0].requires_grad for each in kept if each.features)

    by_pixels, by_features = loss(model, collate, rows), loss(model, collate, kept)
    assert torch.allclose(by_features, by_pixels, rtol=1e-5)
    assert torch.allclose(loss(model, collate, alone), by_pixels, rtol=1e-5)
    gradients = [
        torch.autograd.grad(each, model.get_input_embeddings().weight)[0] for each in (by_pixels, by_features)
    ]
    assert torch.allclose(*gradients, atol=1e-5)

    one, other = kept[1], kept[2]
    swapped = [kept[0], Encoded(**{**vars(one), "features": other.features}), other, kept[3]]
    assert not torch.allclose(loss(model, collate, swapped), by_pixels, rtol=1e-5)


def test_a_tower_that_drops_by_chance_shows(made: dict[str, Checkpoint]) -> None:
    model = made["gemma3"].load()
    model.config.vision_config.attention_dropout = 0.1
    assert drops(model)
