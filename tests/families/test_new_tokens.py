"""Rows of new tokens in each family that is said to learn them: trained alone, merged and proven."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import finetune.adapter
from finetune.adapter import choose_trained
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.model import load_processor
from finetune.new_tokens import read_new_tokens
from lensmith import families
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import Recipe
from tests.artifacts import make_held_out, make_run
from tests.families.conftest import Checkpoint
from tests.family_results import REFUSED, Shows
from tests.roomy import with_room

pytestmark = pytest.mark.slow

LEARNING = [name for name, family in families.FAMILIES.items() if not family.no_new_tokens]
# In every answer of the held-out rows, and no token of any of these vocabularies.
TOKENS = ['{"account":"', '","amount":"']


@pytest.fixture(scope="module", params=LEARNING)
def roomy(
    request: pytest.FixtureRequest, made: dict[str, Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    root = tmp_path_factory.mktemp("roomy") / request.param
    return Checkpoint(families.get(request.param), with_room(made[request.param].root, root, 8))


def test_rows_are_merged_and_proven(
    roomy: Checkpoint, bank_forms: Path, tmp_path: Path, shows: Shows
) -> None:
    shows(roomy.family.name, "", "new tokens")
    recipe, home = roomy.recipe("lora", language="adapt"), Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, ["language"], new_tokens=TOKENS)
    model = merge(recipe, home, base, run)
    proof = prove_merge(recipe, home, base, run, model, make_held_out(home, bank_forms, 4))
    assert proof.statement["findings"] == []
    assert proof.statement["new_tokens"]["tokens"] == run.body["new_tokens"]
    before, after = (load_file(root / "model.safetensors") for root in (roomy.root, model.path))
    for name in [each for each in before if each.endswith(("embed_tokens.weight", "lm_head.weight"))]:
        changed = (before[name] != after[name]).any(1).nonzero().flatten().tolist()
        assert changed == sorted(run.body["new_tokens"].values())


def test_only_rows_and_adapter_learn(roomy: Checkpoint, shows: Shows) -> None:
    shows(roomy.family.name, "", "new tokens")
    new = read_new_tokens(roomy.root, TOKENS)
    content = roomy.recipe("lora", language="adapt").model_dump(mode="json")
    content["train"]["new_tokens"] = TOKENS
    recipe = Recipe.model_validate(content)
    model = choose_trained(roomy.load(), recipe, new=new).model
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    ids = torch.tensor([[5, *new.ids.values(), 9, 7]])
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=1.0).step()
    moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert {name for name in moved if "lora_" not in name} == {
        name for name in before if "trainable_tokens_delta" in name
    }


def test_rows_beside_the_matrix_are_those_in_it(
    roomy: Checkpoint, monkeypatch: pytest.MonkeyPatch, shows: Shows
) -> None:
    """Logits and the rows' gradients equal those of PEFT's own forward, which writes the rows into a copy of
    the matrix."""
    shows(roomy.family.name, "", "new tokens")
    new = read_new_tokens(roomy.root, TOKENS)
    content = roomy.recipe("lora", language="adapt").model_dump(mode="json")
    content["train"]["new_tokens"] = TOKENS
    recipe = Recipe.model_validate(content)
    ids = torch.tensor([[5, *new.ids.values(), 9, 7]])

    def step() -> list[torch.Tensor]:
        model = choose_trained(roomy.load(), recipe, new=new).model
        rows = [each for name, each in model.named_parameters() if "trainable_tokens_delta" in name]
        draw = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for each in rows:
                each.add_(0.1 * torch.randn(each.shape, generator=draw))
        answer = model(input_ids=ids, labels=ids, use_cache=False)
        answer.loss.backward()
        return [answer.logits.detach(), *(each.grad for each in rows if each.grad is not None)]

    ours = step()
    monkeypatch.setattr(finetune.adapter, "compute_apart", lambda model: None)
    theirs = step()
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_molmo2_could_not_write_new_tokens(made: dict[str, Checkpoint]) -> None:
    """Why it is refused: its tokenizer gives them ids that its output head has no rows for."""
    checkpoint = made["molmo2"]
    processor = load_processor(checkpoint.root, None, TOKENS)
    numbers = [processor.tokenizer.convert_tokens_to_ids(token) for token in TOKENS]
    model = checkpoint.load()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert head.weight.shape[0] <= min(numbers) < embeddings.weight.shape[0]


@pytest.mark.parametrize("family", [name for name in families.FAMILIES if name not in LEARNING])
def test_other_families_are_refused(made: dict[str, Checkpoint], family: str, shows: Shows) -> None:
    why = families.get(family).no_new_tokens
    shows(family, "", f"new tokens{REFUSED}", why)
    content = made[family].recipe("lora", language="adapt").model_dump(mode="json")
    content["train"]["new_tokens"] = TOKENS
    with pytest.raises(ValueError, match=f"train.new_tokens: {why}, in {families.get(family).title}: remove"):
        Recipe.model_validate(content)
