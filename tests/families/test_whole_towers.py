"""A tower trained whole beside LoRA on the language model, in each family: trained, saved, merged, proven."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from finetune.adapted import load_trained
from finetune.adapter import choose_trained
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.model import load_model, load_skeleton
from finetune.peft_names import named_in_full
from finetune.proving import form
from finetune.proving.weights import same_bits
from finetune.whole_towers import whole_modules
from lensmith import families
from lensmith.base import pin_base
from lensmith.errors import InputError
from lensmith.families.family import Tower
from lensmith.home import Home
from lensmith.recipe import Recipe
from tests.artifacts import make_held_out, make_run
from tests.families.conftest import Checkpoint
from tests.families.test_steps import STILL, batch_of, changed, logits, step, values
from tests.family_results import REFUSED, Shows

pytestmark = pytest.mark.slow

PREFIX, COPY = "base_model.model.", ".modules_to_save.default"
CELL = "whole"
BESIDE: tuple[Tower, ...] = ("vision", "connector")
NOT_WHOLE = [(name, tower) for name in families.FAMILIES for tower in families.get(name).not_whole]


def beside(family: str) -> list[Tower]:
    """The towers that an adapter can hold whole."""
    return [tower for tower in BESIDE if tower not in families.get(family).not_whole]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_all_of_a_tower_is_trained_beside_an_adapter(
    made: dict[str, Checkpoint], family: str, tmp_path: Path, shows: Shows
) -> None:
    checkpoint, facts, towers = made[family], families.get(family), beside(family)
    for tower in towers:
        shows(family, tower, CELL)
    content = checkpoint.recipe("lora", **dict.fromkeys(towers, "train"), language="adapt").model_dump()
    # Routed experts are adapted beside them where there are any.
    content["train"]["lora"]["experts"] = {"rank": 2} if facts.experts else None
    recipe, bare = Recipe.model_validate(content), checkpoint.load()
    own = {name: each for name, each in bare.named_parameters() if facts.tower_of(name) in towers}
    counts = {
        tower: sum(each.numel() for name, each in own.items() if facts.tower_of(name) == tower)
        for tower in towers
    }
    trained = choose_trained(bare, recipe)
    model = trained.model
    assert set(trained.adapted) == {"language", *(["experts"] if facts.experts else [])}
    assert {tower: trained.parameters[tower] for tower in towers} == counts
    batch, before = batch_of(checkpoint, recipe), values(model)
    assert 0 < step(model, batch) < 100
    moved = changed(before, model)
    linears = {name for name in moved if ".lora_B." in name}
    assert {facts.tower_of(name.removeprefix(PREFIX)) for name in linears} == {"language"}
    assert all(COPY in name for name in moved - linears), "the base's own stay"
    whole = {name.removeprefix(PREFIX).replace(COPY, "") for name in moved - linears}
    assert own.keys() - whole == set(STILL.get(family, {})) & own.keys()
    assert whole <= own.keys()

    model.save_pretrained(tmp_path)
    again = load_trained(checkpoint.root, tmp_path, torch.float32)
    torch.testing.assert_close(logits(model, batch), logits(again, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tower", BESIDE)
def test_a_tower_alone_takes_nothing_of_the_other(made: dict[str, Checkpoint], tower: Tower) -> None:
    """Qwen's connector lies within its vision tower."""
    facts, skeleton = families.get("qwen3_vl"), load_skeleton(made["qwen3_vl"].root)
    modules = whole_modules(skeleton, facts, [tower])
    inside = {
        name
        for name, _ in skeleton.named_parameters()
        if name.startswith(tuple(f"{each}." for each in modules))
    }
    assert inside == {name for name, _ in skeleton.named_parameters() if facts.tower_of(name) == tower}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_towers_beside_an_adapter_are_merged_as_peft_does_and_proven(
    made: dict[str, Checkpoint],
    family: str,
    bank_forms: Path,
    tmp_path: Path,
    shows: Shows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    towers = beside(family)
    for tower in towers:
        shows(family, tower, CELL)
    checkpoint = made[family]
    recipe = checkpoint.recipe("lora", **dict.fromkeys(towers, "train"), language="adapt")
    home = Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, ["language"], whole=towers)
    model = merge(recipe, home, base, run)
    held_out = make_held_out(home, bank_forms, 2)
    assert prove_merge(recipe, home, base, run, model, held_out).statement["findings"] == []
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    proof = prove_merge(recipe, home, base, run, model, held_out)
    assert proof.statement["findings"] == []
    assert proof.statement["weights"]["form"] == "sampled"

    bare = checkpoint.load()
    before = {name: each.clone() for name, each in bare.state_dict().items()}
    with named_in_full(bare):
        theirs = PeftModel.from_pretrained(bare, run.path).merge_and_unload().state_dict()
    ours = load_model(model.path, torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not same_bits(ours[name], theirs[name])] == []
    own = [name for name in before if checkpoint.family.find_tower(name) in towers]
    assert [name for name in own if same_bits(before[name], ours[name])] == []


@pytest.mark.parametrize(("family", "tower"), NOT_WHOLE)
def test_what_no_adapter_can_hold_is_refused(
    made: dict[str, Checkpoint], family: str, tower: Tower, shows: Shows
) -> None:
    shows(family, tower, f"{CELL}{REFUSED}", families.get(family).not_whole[tower])
    with pytest.raises(ValueError, match="cannot be trained whole beside an adapter"):
        made[family].recipe("lora", **{tower: "train", "language": "adapt"})
    with pytest.raises(InputError, match=r"view_separator: lies in no module of its towers alone"):
        whole_modules(made[family].load(), families.get(family), [tower])


def test_the_language_model_is_trained_whole_alone(checkpoint: Checkpoint, shows: Shows) -> None:
    why = "all of its weights are trained by method full"
    shows(checkpoint.family.name, "language", f"{CELL}{REFUSED}", why)
    with pytest.raises(ValueError, match="cannot train the language model whole beside an adapter"):
        checkpoint.recipe("lora", vision="adapt", language="train")
