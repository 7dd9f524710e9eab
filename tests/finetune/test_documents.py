"""A packed row learns what it learns alone: the loss and every gradient of a pack are those of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune import documents
from finetune.answer_loss import teach_answers_only
from finetune.collate import COLUMN, Collator
from finetune.documents import PackCollator, attend_per_document, rope_positions, row_positions
from finetune.encoded import Encoded
from lensmith import families
from tests.finetune.tiny_models import MODELS, glm4v_moe, qwen3_vl_moe, row
from tests.learned import Gradients, Learned, learned

pytestmark = pytest.mark.slow

# Images in several rows, two in one of them; rows of text alone first, between and last; one of two tokens.
ROWS = [
    row(4, 3, 2),
    row(1, 9, 5, ((4, 6),)),
    row(3, 1, 1),
    row(2, 20, 11, ((2, 2), (6, 4))),
    row(6, 12, 4, ((8, 2),)),
    row(5, 7, 3),
]
ALL = {**MODELS, "qwen3_vl_moe": qwen3_vl_moe, "glm4v_moe": glm4v_moe}


def placed(model: PreTrainedModel, rows: list[Encoded]) -> list[Encoded]:
    own = rope_positions(model)
    return [replace(each, positions=own(each.tokens, each.images)) for each in rows]


def packed(model: PreTrainedModel, rows: list[Encoded]) -> dict[str, Tensor]:
    return PackCollator()([{COLUMN: each} for each in placed(model, rows)])


def largest_difference(left: Gradients, right: Gradients) -> float:
    """Of any gradient, in shares of that gradient's largest element."""
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max() / right[name].abs().max()) for name in right)


@pytest.fixture(scope="module", params=list(ALL))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    made = ALL[request.param]()
    teach_answers_only(made)
    return made


@pytest.fixture(scope="module")
def alone(model: PreTrainedModel) -> Learned:
    """Each row by itself, as transformers runs it: its own mask, positions that the model makes."""
    return learned(model, [Collator(0)([{COLUMN: each}]) for each in ROWS])


@pytest.fixture(params=["sdpa", "eager", "per document"])
def attention(request: pytest.FixtureRequest, model: PreTrainedModel) -> None:
    if request.param == "per document":
        attend_per_document(model)
    else:
        model.set_attn_implementation({"text_config": request.param})


def test_all_families_with_a_rope_of_three_dimensions_are_shown_here() -> None:
    packs = {name: family.packs for name, family in families.FAMILIES.items() if family.packs}
    assert {name for name, each in packs.items() if each.positions == "rope"} == set(ALL)


@pytest.mark.usefixtures("attention")
def test_packed_equals_alone(model: PreTrainedModel, alone: Learned) -> None:
    loss, found = learned(model, [packed(model, ROWS)])
    assert loss == pytest.approx(alone[0], rel=1e-6)
    assert largest_difference(found, alone[1]) < 2e-5
    parts, found = learned(model, [packed(model, ROWS[:2]), packed(model, ROWS[2:])])
    assert parts == pytest.approx(alone[0], rel=1e-6)
    assert largest_difference(found, alone[1]) < 2e-5


def test_padded_equals_alone(model: PreTrainedModel, alone: Learned) -> None:
    """The check of the check: what packing is held to is also what padding gives."""
    model.set_attn_implementation({"text_config": "sdpa"})
    loss, found = learned(model, [Collator(0)([{COLUMN: each} for each in ROWS])])
    assert loss == pytest.approx(alone[0], rel=1e-6)
    assert largest_difference(found, alone[1]) < 2e-5


Batch = dict[str, Tensor]


def text_positions_alone(batch: Batch) -> Batch:
    """The rope counts tokens, as if an image were text."""
    return {**batch, "position_ids": batch["position_ids"][:1].expand(4, -1, -1)}


def rope_over_the_whole_pack(batch: Batch) -> Batch:
    positions = batch["position_ids"]
    count = torch.arange(positions.shape[2]).expand(3, 1, -1)
    return {**batch, "position_ids": torch.cat([positions[:1], count])}


def leaking(batch: Batch) -> Batch:
    """One document, for transformers' masks and for ours: each row sees those before it."""
    positions = batch["position_ids"]
    count = torch.arange(positions.shape[2]).expand(1, 1, -1)
    ends = batch["cu_seq_lens_q"][[0, -1]]
    return {**batch, "position_ids": torch.cat([count, positions[1:]]), "cu_seq_lens_q": ends}


MUTANTS = [text_positions_alone, rope_over_the_whole_pack, leaking]


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_positions_and_leaks_would_show(
    model: PreTrainedModel, alone: Learned, mutant: Callable[[Batch], Batch]
) -> None:
    loss, found = learned(model, [mutant(packed(model, ROWS))])
    assert loss != pytest.approx(alone[0], rel=1e-4)
    assert largest_difference(found, alone[1]) > 1e-2


def test_positions_are_the_models_own(model: PreTrainedModel) -> None:
    own = rope_positions(model)
    image = ROWS[1]
    positions = own(image.tokens, image.images)
    assert positions.shape == (3, len(image.labels))
    of_image = positions[:, image.tokens["mm_token_type_ids"] == 1]
    # Four by six patches, merged two by two: two lines of three.
    assert len(of_image[0].unique()) == 1
    assert (of_image[1] - of_image[1].min()).tolist() == [0, 0, 0, 1, 1, 1]
    assert (of_image[2] - of_image[2].min()).tolist() == [0, 1, 2, 0, 1, 2]
    text = own(ROWS[0].tokens, ROWS[0].images)
    assert text.tolist() == [list(range(len(ROWS[0].labels)))] * 3


def test_a_batch_that_is_not_packed_is_an_error(model: PreTrainedModel) -> None:
    """Its mask would silently be left out."""
    attend_per_document(model)
    with pytest.raises(ValueError, match="one packed sequence"):
        learned(model, [Collator(0)([{COLUMN: each} for each in ROWS[:2]])])
    batch = packed(model, ROWS[:2])
    del batch["cu_seq_lens_q"]
    with pytest.raises(ValueError, match="one packed sequence"):
        learned(model, [batch])


def test_a_family_that_does_not_say_how_is_not_packed() -> None:
    with pytest.raises(ValueError, match="rows of Qwen3-VL are not packed"):
        row_positions(MODELS["qwen3_vl"](), replace(families.get("qwen3_vl"), packs=None))


def test_rows_without_positions_are_not_packed() -> None:
    with pytest.raises(ValueError, match="without its positions"):
        PackCollator()([{COLUMN: ROWS[0]}])


def test_where_rows_end_is_asked_once_a_pass(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    attend_per_document(model)
    made: list[int] = []

    def noted(length: int, *_: object) -> None:
        made.append(length)

    monkeypatch.setattr(documents, "_mask", noted)
    batches = [packed(model, ROWS[:2]), packed(model, ROWS[2:])]
    learned(model, batches)
    lengths = [len(each.labels) for each in ROWS]
    assert model.config.get_text_config().num_hidden_layers > 1
    assert made == lengths, "each row once, whatever the layers"
    learned(model, batches[:1])
    assert made == lengths, "and the same pack is known"
