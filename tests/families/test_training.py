"""From labelled forms to a run for every family: resumed, packed, evaluated; by preference; in 4 bits."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from finetune.adapted import load_trained
from finetune.collate import COLUMN, Collator
from finetune.encoded import IGNORED
from finetune.encoder import row_encoder
from finetune.evaluation.evaluate import evaluate
from finetune.generate import reference_trace
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.plan import plan
from finetune.preview import preview
from finetune.quantized import quantized_linears
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.dataset import read_held_out
from lensmith.recipe import Recipe
from tests.artifacts import make_held_out
from tests.families.conftest import Checkpoint, towers_of
from tests.families.trainings import DTYPES, Start, with_rejected
from tests.family_results import Shows
from tests.finetune.conftest import Training
from tests.finetune.test_train import broken_after

pytestmark = pytest.mark.slow

# Two steps of two rows, then two validation rows are asked.
PLAIN: dict[str, Any] = {"evaluate": {"every": 2, "rows": 2, "keep_best": False}}
PREFERRING: dict[str, Any] = {
    "objective": "dpo",
    "dtype": "float32",
    "batch_size": 4,
    "learning_rate": 0.01,
    "warmup": 0.0,
}
Starter = Callable[[str], Start]


@pytest.fixture(scope="module")
def start(made: dict[str, Checkpoint], bank_forms: Path, tmp_path_factory: pytest.TempPathFactory) -> Starter:
    """The prepared home of a family, made when it is first asked for."""
    forms = with_rejected(bank_forms, tmp_path_factory.mktemp("rejected") / "forms")

    @functools.cache
    def prepared(family: str) -> Start:
        begun = Start(made[family], forms, tmp_path_factory.mktemp(family) / "home")
        begun.prepare()
        return begun

    return prepared


@pytest.fixture(scope="module")
def plain(start: Starter, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Training]:
    """A family's training of two steps, evaluated, done."""

    @functools.cache
    def trained(family: str) -> Training:
        training = start(family).training(tmp_path_factory.mktemp("plain"), **PLAIN)
        training.run()
        return training

    return trained


def test_forms_become_a_run(checkpoint: Checkpoint, plain: Callable[[str], Training], shows: Shows) -> None:
    name = checkpoint.family.name
    shows(name, "", "train")
    training = plain(name)
    shown = preview(training.recipe, training.base, training.dataset, 2)
    assert all(row.image_tokens > 0 for row in shown)
    assert all(bool(row.images) == (checkpoint.family.cut == "area") for row in shown)

    assert len(training.losses()) == 2
    assert all(0 < loss < 100 for loss in training.losses())
    engine = training.run().record()["engine"]
    assert engine.get("experts") == ("grouped_mm" if checkpoint.family.experts else None)


def test_stopped_and_resumed_it_is_the_same_run(
    checkpoint: Checkpoint,
    start: Starter,
    plain: Callable[[str], Training],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shows: Shows,
) -> None:
    name = checkpoint.family.name
    shows(name, "", "resume")
    training = start(name).training(tmp_path, **PLAIN)
    broken_after(1, training, monkeypatch)
    run = training.run()
    assert run.record()["resumed_at"] == 1
    assert run.id == plain(name).run().id, "every byte is the same"


def test_packed_it_is_the_same_training(
    checkpoint: Checkpoint, start: Starter, plain: Callable[[str], Training], tmp_path: Path, shows: Shows
) -> None:
    """Losses in float32 to its rounding; where towers compute in bfloat16, to that."""
    name = checkpoint.family.name
    shows(name, "", "packed")
    training = start(name).training(tmp_path, **PLAIN, pack_length=2048)
    planned = plan(training.recipe, training.dataset)
    assert planned.rows.image_tokens > 0
    assert set(planned.adapted) == set(towers_of(name, "lora"))
    assert planned.memory.activations > 0
    assert planned.experts == ("grouped_mm" if checkpoint.family.experts else None)
    assert planned.packs is not None
    assert planned.packs.passes == 1
    within = 1e-5 if DTYPES.get(name) is None else 2e-3
    assert training.losses() == pytest.approx(plain(name).losses(), rel=within)
    assert training.run().manifest.key == plain(name).run().manifest.key


def answers_of(recipe: Recipe, training: Training, exam: Artifact) -> dict[str, str]:
    """By row what transformers' own generate writes behind each prompt, as it is trained on."""
    encoder = row_encoder(recipe, recipe.base.path)
    model = load_trained(recipe.base.path, training.run().path, torch.float32)
    collate = Collator(encoder.pad_id, recipe.model_family.numbers)
    written: dict[str, str] = {}
    for row in read_held_out(training.home, exam, "test"):
        encoded = encoder.encode(row)
        length = int((encoded.labels == IGNORED).sum())
        batch = {name: each for name, each in collate([{COLUMN: encoded}]).items() if name != "labels"}
        prompt = {name: each[:, :length] if name in encoded.tokens else each for name, each in batch.items()}
        settings = GenerationConfig(max_new_tokens=recipe.serve.max_new_tokens, do_sample=False)
        ids = model.generate(**prompt, generation_config=settings)  # pyright: ignore[reportCallIssue]
        text = encoder.tokenizer.decode(ids[0, length:], skip_special_tokens=True)
        written[row.sample.id] = str(text).strip()
    return written


@pytest.mark.usefixtures("answered_here")
def test_its_answers_are_judged(
    checkpoint: Checkpoint,
    plain: Callable[[str], Training],
    bank_forms: Path,
    answered_here: None,
    shows: Shows,
) -> None:
    """During training and after: what is judged is what the run answers."""
    name = checkpoint.family.name
    shows(name, "", "evaluate")
    training = plain(name)
    (scored,) = training.run().body["evaluation"]["scores"]
    assert (scored["step"], scored["rows"]) == (2, 2)
    exam = make_held_out(training.home, bank_forms, 2)
    recipe = training.recipe
    trace = reference_trace(recipe, training.home, training.base, training.run(), exam, 2)
    report = evaluate(recipe, training.home, trace, exam, None)
    assert report.body["rows"] == 2
    judged = [json.loads(line) for line in (report.path / "predictions.jsonl").read_text().splitlines()]
    assert {each["row"]: each["answer"].strip() for each in judged} == answers_of(recipe, training, exam)


def test_preferences_are_learned(
    checkpoint: Checkpoint, start: Starter, tmp_path: Path, shows: Shows
) -> None:
    name = checkpoint.family.name
    shows(name, "", "dpo")
    first, last = start(name).training(tmp_path, **PREFERRING).metrics()
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last["loss"] < first["loss"]
    assert last["reward_margin"] > 0


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_language_model_in_4_bits(
    family: str, start: Starter, tmp_path: Path, bank_forms: Path, shows: Shows
) -> None:
    """Its linear layers; routed experts stay as they are, and are so in what is merged."""
    shows(family, "", "qlora")
    training = start(family).training(tmp_path, method="qlora")
    recipe, home, base, run = training.recipe, training.home, training.base, training.run()
    wanted = quantized_linears(recipe.model_family, start(family).checkpoint.config)
    assert run.record()["linears_in_4_bits"] == len(wanted) > 0
    assert all(0 < loss < 100 for loss in training.losses())
    if recipe.model_family.experts is None:
        return
    model = merge(recipe, home, base, run)
    proof = prove_merge(recipe, home, base, run, model, make_held_out(home, bank_forms, 2))
    assert proof.statement["findings"] == []
    assert proof.statement["weights"]["merged"] > 0
    assert proof.statement["logits_4_bits"]["max_abs_difference"] > 0
