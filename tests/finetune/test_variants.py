"""Each form of LoRA from the recipe to the merged weights: what it says reaches what is trained and saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import finetune.adapter
from finetune.adapter import choose_trained
from finetune.lora import check_saved, lora_config
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.model import load_model, load_skeleton
from finetune.rates import split_by_rate
from lensmith.errors import IntegrityError
from lensmith.recipe import load_recipe
from tests.artifacts import make_held_out
from tests.conftest import RecipeMaker
from tests.finetune.conftest import Training, TrainingMaker

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOWERS = {"vision": {"rank": 2, "alpha": 12.0}, "language": {"rank": 6}}


@dataclass(frozen=True)
class Form:
    """A recipe's train.lora, what the saved config must say of it, and the scale of the towers' deltas."""

    lora: dict[str, Any]
    config: dict[str, Any]
    ranks: dict[str, int]
    scales: dict[str, float]


SAME_RANKS = {"vision": 4, "connector": 4, "language": 4}
FORMS = {
    "rslora": Form(
        {"rank": 4, "alpha": 8.0, "variant": "rslora"},
        {"use_rslora": True, "use_dora": False, "r": 4, "lora_alpha": 8},
        SAME_RANKS,
        {"vision": 4.0, "connector": 4.0, "language": 4.0},
    ),
    "dora": Form(
        {"rank": 4, "alpha": 8.0, "variant": "dora"},
        {"use_rslora": False, "use_dora": True, "r": 4, "lora_alpha": 8},
        SAME_RANKS,
        {"vision": 2.0, "connector": 2.0, "language": 2.0},
    ),
    "towers": Form(
        {"rank": 4, "alpha": 8.0, "towers": TOWERS},
        {"use_rslora": False, "use_dora": False, "r": 4, "lora_alpha": 8},
        {"vision": 2, "connector": 4, "language": 6},
        {"vision": 6.0, "connector": 2.0, "language": 8 / 6},
    ),
    "dora_towers": Form(
        {"rank": 4, "alpha": 8.0, "variant": "dora", "dropout": 0.1, "towers": TOWERS},
        {"use_rslora": False, "use_dora": True, "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        {"vision": 2, "connector": 4, "language": 6},
        {"vision": 6.0, "connector": 2.0, "language": 8 / 6},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_the_recipe_says_reaches_every_layer(
    name: str, tiny_base: Path, make_recipe: RecipeMaker
) -> None:
    form = FORMS[name]
    recipe = load_recipe(make_recipe(train__lora=form.lora))
    model = choose_trained(load_skeleton(tiny_base), recipe).model
    layers = {name: module for name, module in model.named_modules() if name.endswith(".lora_A.default")}
    assert len(layers) == 26
    for name, matrix in layers.items():
        module = name.removesuffix(".lora_A.default")
        tower = recipe.model_family.tower_of(module.removeprefix("base_model.model."))
        layer = model.get_submodule(module)
        assert matrix.weight.shape[0] == form.ranks[tower]
        assert layer.scaling["default"] == pytest.approx(form.scales[tower])
        assert ("default" in layer.lora_magnitude_vector) == (recipe.train.lora.variant == "dora")


@pytest.mark.parametrize(
    ("name", "dropped"),
    [("rslora", "use_rslora"), ("dora", "use_dora"), ("towers", "rank_pattern"), ("towers", "alpha_pattern")],
)
def test_a_setting_that_does_not_arrive_is_noticed(
    name: str, dropped: str, tiny_base: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: PEFT is never told."""

    def without(*arguments: Any) -> Any:
        config = lora_config(*arguments)
        setattr(config, dropped, {} if dropped.endswith("pattern") else False)
        return config

    monkeypatch.setattr(finetune.adapter, "lora_config", without)
    recipe = load_recipe(make_recipe(train__lora=FORMS[name].lora))
    with pytest.raises(IntegrityError, match="not the one that the recipe asks for"):
        choose_trained(load_skeleton(tiny_base), recipe)


def test_a_pattern_fits_its_module_alone(tiny_base: Path, make_recipe: RecipeMaker) -> None:
    from peft.utils.other import get_pattern_key

    recipe = load_recipe(make_recipe(train__lora=FORMS["towers"].lora))
    model = load_skeleton(tiny_base)
    names = {name for name, _ in model.named_modules()}
    patterns = list(lora_config(recipe.train.lora, {"vision": ["a.1.fc"], "language": ["b.q"]}).rank_pattern)
    assert get_pattern_key(patterns, "a.1.fc") == patterns[0]
    # As PEFT says that none fits: it gives the name back.
    for other in ("x.a.1.fc", "a.1.fc2", "a.11fc", "b_q"):
        assert get_pattern_key(patterns, other) == other
    wrapped = choose_trained(model, recipe).model
    for pattern in wrapped.peft_config["default"].rank_pattern:
        assert len([name for name in names if get_pattern_key([pattern], name) == pattern]) == 1


def saved(root: Path, tiny_base: Path, recipe_path: Path) -> tuple[Path, Any]:
    """A checkpoint with an untrained adapter, and its shape."""
    recipe = load_recipe(recipe_path)
    model = choose_trained(load_model(tiny_base, torch.float32), recipe).model
    model.save_pretrained(str(root))
    return root, choose_trained(load_skeleton(tiny_base), recipe).model


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


@pytest.mark.slow
def test_a_checkpoint_that_holds_another_adapter_is_noticed(
    tiny_base: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    root, shape = saved(tmp_path / "c", tiny_base, make_recipe(train__lora=FORMS["dora_towers"].lora))
    check_saved(root, shape)
    config, whole = (root / CONFIG).read_bytes(), load_file(root / WEIGHTS)
    for changes in (
        {"use_dora": False},
        {"use_rslora": True},
        {"lora_alpha": 9},
        {"r": 5},
        {"rank_pattern": {}},
        {"alpha_pattern": {}},
    ):
        edit(root / CONFIG, **changes)
        with pytest.raises(IntegrityError, match=next(iter(changes))):
            check_saved(root, shape)
        (root / CONFIG).write_bytes(config)
    magnitudes = [name for name in whole if "magnitude" in name]
    assert len(magnitudes) == 26
    for change in (
        {name: tensor for name, tensor in whole.items() if name != magnitudes[3]},
        whole | {magnitudes[3]: torch.ones(7)},
        whole | {f"{magnitudes[3]}.twice": torch.ones(7)},
    ):
        save_file(change, root / WEIGHTS)
        with pytest.raises(IntegrityError, match=r"magnitude"):
            check_saved(root, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_from_the_recipe_to_the_proof(name: str, new_training: TrainingMaker, bank_forms: Path) -> None:
    form = FORMS[name]
    training: Training = new_training(train__lora=form.lora)
    run = training.run()
    config = json.loads((run.path / CONFIG).read_bytes())
    assert {key: config[key] for key in form.config} == form.config
    tensors = load_file(run.path / WEIGHTS)
    family = training.recipe.model_family
    dora = training.recipe.train.lora.variant == "dora"
    assert len(tensors) == 26 * (3 if dora else 2)
    base = load_file(training.recipe.base.path / "model.safetensors")
    for key, tensor in tensors.items():
        module = key.removeprefix("base_model.model.").partition(".lora_")[0]
        if ".lora_A." in key:
            assert tensor.shape[0] == form.ranks[family.tower_of(module)]
        if "magnitude" in key:
            length = torch.linalg.norm(base[f"{module}.weight"], dim=1)
            assert not torch.equal(tensor, length), "as it started: it was not trained"
    model = merge(training.recipe, training.home, training.base, run)
    held_out = make_held_out(training.home, bank_forms, 4)
    proof = prove_merge(training.recipe, training.home, training.base, run, model, held_out)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.statement["adapter"] == {
        "tensors": len(tensors),
        "modules": 26,
        "used_once": len(tensors),
    }
    assert model.body["tensors_changed"] == 26


RATES = {"vision": 0.004, "connector": 0.016}


def first_steps(training: Training) -> dict[str, float]:
    """By tower how far one step of AdamW moved the weight that moved most: the tower's learning rate."""
    run, base = training.run(), load_file(training.recipe.base.path / "model.safetensors")
    lora = training.recipe.train.method == "lora"
    moved: dict[str, float] = {}
    for name, tensor in load_file(next(run.path.glob("*.safetensors"))).items():
        # B starts at zero; the gradient of A, and its step, is zero as long as B is.
        plain = name.removeprefix("base_model.model.")
        before = torch.zeros_like(tensor) if ".lora_B." in name else base.get(plain, tensor)
        tower = training.recipe.model_family.tower_of(plain)
        moved[tower] = max(moved.get(tower, 0.0), float((tensor - before).abs().max()))
    assert lora == any(".lora_B." in name for name in load_file(next(run.path.glob("*.safetensors"))))
    return moved


STEPPED = {"vision": 0.004, "connector": 0.016, "language": 0.01}
ONE_STEP: dict[str, Any] = {
    "train__max_steps": 1,
    "train__schedule": "constant",
    "train__learning_rate": 0.01,
    "train__tower_learning_rates": RATES,
}
WHOLE: dict[str, Any] = {
    "train__method": "full",
    "train__towers": {"vision": "train", "connector": "train", "language": "train"},
}

BESIDE = {"train__towers": {"vision": "adapt", "connector": "train", "language": "adapt"}}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full", "both"])
def test_each_tower_learns_at_its_rate(new_training: TrainingMaker, method: str) -> None:
    training = new_training(**ONE_STEP, **{"lora": {}, "full": WHOLE, "both": BESIDE}[method])
    assert first_steps(training) == pytest.approx(STEPPED, rel=1e-3)
    line = json.loads((training.run().path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["learning_rate"] == 0.01, "that of the towers without one of their own"


@pytest.mark.slow
def test_one_rate_for_all_would_show(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: the optimizer's groups are left as they are."""
    monkeypatch.setattr("finetune.trainer.split_by_rate", lambda *arguments: None)
    assert first_steps(new_training(**ONE_STEP)) == pytest.approx(dict.fromkeys(STEPPED, 0.01), rel=1e-3)


def test_a_rate_keeps_what_else_a_group_has(tiny_base: Path, make_recipe: RecipeMaker) -> None:
    recipe = load_recipe(make_recipe(**ONE_STEP, **WHOLE))
    model = choose_trained(load_skeleton(tiny_base), recipe).model
    named = dict(model.named_parameters())
    decayed = [each for name, each in named.items() if name.endswith("weight")]
    other = [each for name, each in named.items() if not name.endswith("weight")]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}], lr=0.01
    )
    split_by_rate(optimizer, named.items(), recipe)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.004, 0.016, 0.004, 0.016]
    # The language model has no biases.
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(named)
    decays = {
        parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert all(decays[each] == 0.1 for each in decayed)
    assert all(decays[each] == 0.0 for each in other)
    # A schedule scales each group's own peak.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert schedule.get_last_lr() == pytest.approx([0.005, 0.002, 0.008, 0.002, 0.008])
