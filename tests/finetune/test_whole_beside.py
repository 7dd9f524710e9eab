"""A connector trained whole beside LoRA, from the recipe to the proof: packed, resumed, by preference, in 4
bits, in bfloat16; what goes wrong with it is found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.adapted import load_trained
from finetune.adapter import choose_trained
from finetune.lora import check_saved
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.merging.adapter import read_adapter
from finetune.model import load_skeleton
from finetune.plan import plan
from finetune.proving import form
from finetune.proving.weights import adapter_part
from finetune.whole_towers import copies
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError, IntegrityError
from tests.artifacts import make_held_out
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.merged import Walk, planted
from tests.finetune.test_distributed import WHOLE
from tests.finetune.test_train import broken_after
from tests.roomy import TOKENS

pytestmark = pytest.mark.slow

PREFIX = "base_model.model."
CONNECTOR = ("model.visual.merger.", "model.visual.deepstack_merger_list.")
BOTH = {"vision": "train", "connector": "train", "language": "adapt"}
NORM = "model.visual.merger.norm.weight"


def held_whole(training: Training) -> dict[str, torch.Tensor]:
    """By its name in the class what the run's adapter holds of the connector."""
    tensors = load_file(training.run().path / ADAPTER_WEIGHTS)
    return {
        name.removeprefix(PREFIX): each
        for name, each in tensors.items()
        if name.removeprefix(PREFIX).startswith(CONNECTOR)
    }


@pytest.fixture(scope="module")
def whole(new_training: TrainingMaker) -> Training:
    training = new_training(**WHOLE)
    training.run()
    return training


@pytest.fixture(scope="module")
def walked(whole: Training, bank_forms: Path) -> Walk:
    """Its merged model."""
    model = merge(whole.recipe, whole.home, whole.base, whole.run())
    held_out = make_held_out(whole.home, bank_forms, 4)
    return Walk(whole.recipe, whole.home, whole.base, whole.run(), model, held_out)


def prove(walk: Walk) -> Any:
    return prove_merge(walk.recipe, walk.home, walk.base, walk.run, walk.model, walk.held_out)


def proven(training: Training, forms: Path) -> dict[str, Any]:
    """What the proof of its merged model says."""
    recipe, home, base, run = training.recipe, training.home, training.base, training.run()
    model = merge(recipe, home, base, run)
    return prove_merge(recipe, home, base, run, model, make_held_out(home, forms, 2)).statement


def test_every_weight_of_it_is_trained_and_in_the_run(whole: Training, tiny_base: Path) -> None:
    base, held = load_file(tiny_base / "model.safetensors"), held_whole(whole)
    assert held.keys() == {name for name in base if name.startswith(CONNECTOR)}
    assert all(not torch.equal(base[name], each) for name, each in held.items())
    body = whole.run().body
    assert body["trained_parameters"]["connector"] == sum(each.numel() for each in held.values())
    assert (body["towers"]["connector"], set(body["adapted"])) == ("train", {"language"})
    planned = plan(whole.recipe, whole.dataset)
    assert planned.trained_parameters == body["trained_parameters"]


def test_packed_and_resumed_it_is_the_same_run(
    whole: Training, new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = new_training(**WHOLE, train__pack_length=1024)
    assert packed.losses() == pytest.approx(whole.losses(), abs=1e-5)
    again = new_training(**WHOLE)
    broken_after(2, again, monkeypatch)
    assert again.run().record()["resumed_at"] == 2
    assert again.run().id == whole.run().id, "every byte is the same"


def test_in_bfloat16_it_trains_in_float32(new_training: TrainingMaker, bank_forms: Path) -> None:
    """Beside DoRA; the model is asked while it trains."""
    training = new_training(
        **WHOLE,
        train__dtype="bfloat16",
        train__learning_rate=0.001,
        train__lora={"variant": "dora", "rank": 4, "alpha": 8.0},
        train__evaluate={"every": 2, "rows": 2, "keep_best": False},
    )
    assert all(0 < loss < 100 for loss in training.losses())
    assert training.run().body["evaluation"]["scores"]
    held = held_whole(training)
    assert {each.dtype for each in held.values()} == {torch.float32}
    assert not all(torch.equal(each, each.bfloat16().float()) for each in held.values())
    assert proven(training, bank_forms)["findings"] == []
    asked = copies(load_trained(training.recipe.base.path, training.run().path, torch.bfloat16))
    assert all(torch.equal(asked[name], each.bfloat16()) for name, each in held.items())


def test_preferences_are_against_the_base(new_training: TrainingMaker, preferences: dict[str, Any]) -> None:
    """The reference is the base without the copies that train: at first it is as likely. The vision tower
    trains too, blocks computed again; there are rows of text alone."""
    training = new_training(
        **{**preferences, "train__towers": BOTH, "train__max_steps": 3, "train__gradient_checkpointing": True}
    )
    first, *_, last = training.metrics()
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last["loss"] < first["loss"]
    assert training.run().body["trained_parameters"]["vision"] > 0


def test_beside_a_language_model_in_4_bits(new_training: TrainingMaker, bank_forms: Path) -> None:
    training = new_training(**WHOLE, train__method="qlora")
    assert proven(training, bank_forms)["findings"] == []
    model = merge(training.recipe, training.home, training.base, training.run())
    merged = load_file(model.path / "model.safetensors")
    assert all(torch.equal(merged[name], each) for name, each in held_whole(training).items())


def test_beside_new_tokens(new_training: TrainingMaker, roomy: Path) -> None:
    training = new_training(**WHOLE, base__path=roomy, train__new_tokens=TOKENS)
    model = merge(training.recipe, training.home, training.base, training.run())
    merged = load_file(model.path / "model.safetensors")
    assert all(torch.equal(merged[name], each) for name, each in held_whole(training).items())


@pytest.mark.parametrize("size", ["whole", "sampled"])
def test_a_merge_is_proven_and_faults_of_it_are_found(
    walked: Walk, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "sampled":
        monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    assert prove(walked).statement["findings"] == []
    base = load_file(walked.recipe.base.path / "model.safetensors")

    def of_the_base(root: Path) -> None:
        path = root / "model.safetensors"
        tensors = load_file(path)
        save_file({**tensors, NORM: base[NORM]}, path, metadata={"format": "pt"})

    found = prove(planted(walked, f"base {size}", of_the_base))
    assert any(f"differ from the definition: {NORM}" in each for each in found.statement["findings"])

    def lost(root: Path) -> None:
        path = root / "model.safetensors"
        tensors = load_file(path)
        del tensors[NORM]
        save_file(tensors, path, metadata={"format": "pt"})

    found = prove(planted(walked, f"lost {size}", lost))
    assert any(f"tensors of the base are missing: {NORM}" in each for each in found.statement["findings"])


def test_a_run_that_lost_a_part_of_it_is_found(whole: Training, tmp_path: Path) -> None:
    run = whole.run().path
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    kept = load_file(run / ADAPTER_WEIGHTS)
    shape = choose_trained(load_skeleton(whole.recipe.base.path), whole.recipe).model
    check_saved(tmp_path, shape)
    config = json.loads((run / ADAPTER_CONFIG).read_bytes())
    fewer = {**config, "modules_to_save": config["modules_to_save"][1:]}
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(fewer))
    with pytest.raises(IntegrityError, match="modules_to_save are not those that were trained"):
        check_saved(tmp_path, shape)
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(config))
    trained = load_trained(whole.recipe.base.path, run, torch.float32)
    for change in (lambda old: None, lambda old: old + 1):
        tensors = {name: each for name, each in kept.items() if not name.endswith(NORM)}
        if (new := change(kept[PREFIX + NORM])) is not None:
            tensors[PREFIX + NORM] = new
        save_file(tensors, tmp_path / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        assert f"{PREFIX}{NORM} is not what" in adapter_part(trained, tmp_path).findings[0]
    del tensors[PREFIX + NORM]
    save_file(tensors, tmp_path / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=f"{NORM}: is not there"):
        check_saved(tmp_path, shape)
    with pytest.raises(IntegrityError, match="was not loaded whole"):
        load_trained(whole.recipe.base.path, tmp_path, torch.float32)
    bias = NORM.replace("weight", "bias")
    save_file(
        {name: each for name, each in tensors.items() if name != PREFIX + bias},
        tmp_path / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )
    with pytest.raises(InputError, match="modules_to_save names it, and no tensor is of it"):
        read_adapter(tmp_path)
