"""One optimizer step changes exactly the tower that the recipe trains; what is saved is what was trained."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from finetune.adapted import load_trained
from finetune.adapter import choose_trained
from finetune.collate import COLUMN, Collator
from finetune.encoded import IGNORED
from finetune.encoder import row_encoder
from finetune.model import load_model
from lensmith import families
from lensmith.errors import InputError
from lensmith.families.family import Tower
from lensmith.recipe import Recipe
from lensmith.row_file import Row
from tests.families.conftest import Checkpoint, row_of, towers_of
from tests.family_results import Shows

pytestmark = pytest.mark.slow

# Parameters of a trained tower that one step leaves as they are, and why.
STILL = {
    "deepseek_ocr2": {
        "model.vision_tower.query_1024_resolution.weight": "views of 768 pixels have queries of their own"
    }
}

LORA = [(name, tower) for name in families.FAMILIES for tower in towers_of(name, "lora")]
FULL = [(name, tower) for name in families.FAMILIES for tower in towers_of(name, "full")]


def batch_of(checkpoint: Checkpoint, recipe: Recipe, *more: Row) -> dict[str, Tensor]:
    """Two rows of different lengths, each with an image, and `more`."""
    encoder = row_encoder(recipe, checkpoint.root)
    rows = [row_of('{"a": "12"}', (200, 100)), row_of("a longer answer than the first", (112, 112)), *more]
    return Collator(encoder.pad_id, checkpoint.family.numbers)(
        [{COLUMN: encoder.encode(row)} for row in rows]
    )


def step(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """One step of AdamW on what trains; the loss before it."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=0.01, weight_decay=0.0
    )
    loss = model.train()(**batch).loss
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, each in model.named_parameters() if not torch.equal(before[name], each)}


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.mark.parametrize(("family", "tower"), FULL)
def test_full_changes_one_tower(
    made: dict[str, Checkpoint], family: str, tower: Tower, tmp_path: Path, shows: Shows
) -> None:
    shows(family, tower, "full")
    checkpoint = made[family]
    recipe = checkpoint.recipe("full", **{tower: "train"})
    model = choose_trained(checkpoint.load(), recipe).model
    batch, before = batch_of(checkpoint, recipe), values(model)
    loss = step(model, batch)
    assert 0 < loss < 100
    moved = changed(before, model)
    facts = checkpoint.family
    assert {facts.tower_of(name) for name in moved} == {tower}
    routers = set(facts.experts.routers(checkpoint.config)) if facts.experts else set()
    own = {name for name in before if facts.tower_of(name) == tower}
    assert own - moved - routers == set(STILL.get(family, {})) & own
    assert not moved & routers

    model.save_pretrained(tmp_path)
    again = load_model(tmp_path, torch.float32)
    assert changed(values(model), again) == set()
    # Equal weights may lie in memory otherwise, and are summed in another order.
    torch.testing.assert_close(logits(model, batch), logits(again, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "tower"), LORA)
def test_lora_changes_one_tower(
    made: dict[str, Checkpoint], family: str, tower: Tower, tmp_path: Path, shows: Shows
) -> None:
    shows(family, tower, "lora")
    checkpoint = made[family]
    recipe = checkpoint.recipe("lora", **{tower: "adapt"})
    trained = choose_trained(checkpoint.load(), recipe)
    model = trained.model
    assert trained.adapted == {tower: len(checkpoint.family.expected_linears(checkpoint.config, tower))}
    batch, before = batch_of(checkpoint, recipe), values(model)
    untrained = logits(model, batch)
    assert 0 < step(model, batch) < 100
    moved = changed(before, model)
    # B starts at zero, so the first step leaves A as it is.
    assert moved == {name for name in before if ".lora_B." in name}
    prefix = "base_model.model."
    assert {checkpoint.family.tower_of(name.removeprefix(prefix)) for name in moved} == {tower}
    assert not torch.allclose(untrained, logits(model, batch), atol=1e-4)

    model.save_pretrained(tmp_path)
    again = load_trained(checkpoint.root, tmp_path, torch.float32)
    # Equal weights may lie in memory otherwise, and are summed in another order.
    torch.testing.assert_close(logits(model, batch), logits(again, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "family", [name for name in families.FAMILIES if towers_of(name, "lora") != towers_of(name, "full")]
)
def test_a_tower_without_linears_cannot_be_adapted(made: dict[str, Checkpoint], family: str) -> None:
    missing = set(towers_of(family, "full")) - set(towers_of(family, "lora"))
    for tower in missing:
        with pytest.raises(ValueError, match="no linear layer that LoRA could adapt"):
            made[family].recipe("lora", **{tower: "adapt"})


def test_the_image_changes_the_answer(checkpoint: Checkpoint) -> None:
    """Otherwise a tower could be cut off and no test above would see it."""
    recipe = checkpoint.recipe("full", language="train")
    model, batch = checkpoint.load(), batch_of(checkpoint, recipe)
    first = logits(model, batch)
    batch["pixel_values"] = batch["pixel_values"].flip(0).clone() * 0.5
    assert not torch.allclose(first, logits(model, batch), atol=1e-4)


def test_a_budget_in_pixels_fits_or_is_refused(checkpoint: Checkpoint) -> None:
    recipe = checkpoint.recipe("full", language="train")
    content = recipe.model_dump() | {"pixels": {"min_pixels": 8192, "max_pixels": 65536}}
    if checkpoint.family.cut == "area":
        assert Recipe.model_validate(content).pixel_budget is not None
    else:
        with pytest.raises(ValueError, match="leave out pixels"):
            Recipe.model_validate(content)


def test_names_that_peft_would_take_for_experts(
    made: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to itself PEFT leaves GLM-4.6V's gate_proj linears without an adapter: the check names them."""
    monkeypatch.setattr("finetune.adapter.named_in_full", nullcontext)
    checkpoint = made["glm4v_moe"]
    with pytest.raises(InputError, match="linears carry an adapter, the family states"):
        choose_trained(checkpoint.load(), checkpoint.recipe("lora", vision="adapt"))


def test_the_loss_of_answers_alone_is_the_models_own(checkpoint: Checkpoint) -> None:
    from finetune.answer_loss import teach_answers_only

    model = checkpoint.load()
    batch = batch_of(checkpoint, checkpoint.recipe("full", language="train"))
    with torch.no_grad():
        whole = model.eval()(**batch).loss
        teach_answers_only(model)
        labels = batch.pop("labels")
        loss, answers, _ = model(**batch, answer_labels=labels)
    assert int(answers) == int((labels[:, 1:] != IGNORED).sum())
    torch.testing.assert_close(loss / answers, whole, rtol=1e-5, atol=1e-5)


def losses(checkpoint: Checkpoint, numbers: tuple[tuple[str, str], ...]) -> tuple[float, float]:
    """Nats over all answer tokens of rows together in a batch, and of each alone."""
    encoder = row_encoder(checkpoint.recipe("full", language="train"), checkpoint.root)
    model = checkpoint.load().eval()
    rows = [encoder.encode(row_of("1", (200, 100))), encoder.encode(row_of("second", (80, 90), (112, 112)))]
    collate = Collator(encoder.pad_id, numbers)
    alone = 0.0
    with torch.no_grad():
        for row in rows:
            count = int((row.labels != IGNORED).sum())
            alone += float(model(**collate([{COLUMN: row}])).loss) * count
        batch = collate([{COLUMN: row} for row in rows])
        count = int((batch["labels"] != IGNORED).sum())
        return float(model(**batch).loss) * count, alone


def test_rows_are_taught_together_as_each_alone(checkpoint: Checkpoint, shows: Shows) -> None:
    shows(checkpoint.family.name, "", "batch")
    together, alone = losses(checkpoint, checkpoint.family.numbers)
    assert together == pytest.approx(alone, rel=1e-4)


def test_patches_that_are_not_numbered_on_are_another_image(made: dict[str, Checkpoint]) -> None:
    together, alone = losses(made["molmo2"], ())
    assert together != pytest.approx(alone, rel=1e-4)
