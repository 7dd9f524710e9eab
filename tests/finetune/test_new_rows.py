"""The rows of new tokens in a model: where they start, that they alone are trained, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import finetune.adapter
from finetune.adapter import choose_trained
from finetune.dry_run import dry_step
from finetune.lora import lora_config
from finetune.model import load_model, load_skeleton
from finetune.new_tokens import NewTokens, read_new_tokens
from lensmith.errors import IntegrityError
from lensmith.recipe import load_recipe
from tests.conftest import RecipeMaker
from tests.roomy import EMBEDDINGS, HEAD, IDS, TOKENS


@pytest.fixture(params=["own_head", "tied"])
def started(request: pytest.FixtureRequest, roomy: Path, tied: Path) -> Path:
    return tied if request.param == "tied" else roomy


def test_rows_start_as_the_mean_of_their_pieces(started: Path, make_recipe: RecipeMaker) -> None:
    new = read_new_tokens(started, TOKENS)
    assert new.ids == IDS
    assert all(len(pieces) > 2 for pieces in new.pieces.values())
    recipe = load_recipe(make_recipe(base__path=started, train__new_tokens=TOKENS))
    before = load_model(started, torch.float32).state_dict()
    model = choose_trained(load_model(started, torch.float32), recipe, new=new).model
    after = model.state_dict()
    prefix, suffix = "base_model.model.", "token_adapter.base_layer.weight"
    for name in (EMBEDDINGS, HEAD):
        rows = after[prefix + name.replace("weight", suffix)]
        assert torch.equal(rows[:1024], before[name][:1024])
        for token, number in IDS.items():
            assert torch.allclose(rows[number], before[name][new.pieces[token]].mean(0), atol=1e-6)
    trained = {name for name, each in model.named_parameters() if each.requires_grad and "lora" not in name}
    rows = ".token_adapter.trainable_tokens_delta.default"
    wanted = {EMBEDDINGS} if started.parent.name.startswith("tied") else {EMBEDDINGS, HEAD}
    assert trained == {prefix + name.removesuffix(".weight") + rows for name in wanted}


def test_rows_beside_the_matrix_learn_as_rows_in_it(
    started: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and every gradient, in one dtype and with rows in another, equal PEFT's own."""
    new = read_new_tokens(started, TOKENS)
    recipe = load_recipe(make_recipe(base__path=str(started), train__new_tokens=TOKENS))
    ids = torch.tensor([[5, 1024, 9, 1026, 1024, 77, 1025, 8]])

    def step(dtype: torch.dtype) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = choose_trained(load_model(started, dtype), recipe, new=new).model
        with torch.no_grad():
            for name, each in model.named_parameters():
                if "lora_B" in name or "trainable_tokens" in name:
                    each.add_(0.1 * torch.randn_like(each))
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        return found | {"loss": loss.detach()}

    for dtype, atol in ((torch.float32, 1e-6), (torch.bfloat16, 0.02)):
        ours = step(dtype)
        with monkeypatch.context() as patch:
            patch.setattr(finetune.adapter, "compute_apart", lambda model: None)
            theirs = step(dtype)
        assert ours.keys() == theirs.keys()
        assert sum("trainable_tokens" in name for name in ours) >= 1
        for name, value in theirs.items():
            assert torch.allclose(ours[name].float(), value.float(), atol=atol), name


def test_no_pass_holds_a_copy_of_a_matrix(
    roomy: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {name: torch.ones(1, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask", "labels")}

    def held(*tokens: str) -> int:
        recipe = load_recipe(make_recipe(base__path=str(roomy), train__new_tokens=list(tokens)))
        model = choose_trained(load_skeleton(roomy), recipe, new=read_new_tokens(roomy, tokens)).model
        return dry_step(model, batch, recomputed=0, autocast=False).held

    matrix = 1040 * 64 * torch.float32.itemsize
    plain = held()
    assert plain < held(*TOKENS) < plain + matrix / 2
    monkeypatch.setattr(finetune.adapter, "compute_apart", lambda model: None)
    assert held(*TOKENS) > plain + matrix


def test_training_the_whole_matrix_is_noticed(
    roomy: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole_matrix(*arguments: Any) -> Any:
        config = lora_config(*arguments[:2])
        config.modules_to_save = ["embed_tokens"]
        return config

    monkeypatch.setattr(finetune.adapter, "lora_config", whole_matrix)
    recipe = load_recipe(make_recipe(base__path=roomy, train__new_tokens=TOKENS))
    with pytest.raises(
        IntegrityError, match=r"embed_tokens\.modules_to_save\.default\.weight: is trained whole"
    ):
        choose_trained(load_skeleton(roomy), recipe, new=read_new_tokens(roomy, TOKENS))


def test_rows_that_peft_is_not_told_of_are_noticed(
    roomy: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(make_recipe(base__path=roomy, train__new_tokens=TOKENS))
    new = read_new_tokens(roomy, TOKENS)
    for told in (None, {"lm_head": [1024, 1025, 1026]}, {"model.language_model.embed_tokens": [1024]}):

        def other(lora: Any, targets: Any, rows: Any, whole: Any, told: Any = told) -> Any:
            return lora_config(lora, targets, told)

        monkeypatch.setattr(finetune.adapter, "lora_config", other)
        with pytest.raises(IntegrityError, match="the rows that are trained are not the new tokens'"):
            choose_trained(load_skeleton(roomy), recipe, new=new)
    with pytest.raises(ValueError, match="the recipe's new tokens are"):
        choose_trained(load_skeleton(roomy), recipe, new=NewTokens())
