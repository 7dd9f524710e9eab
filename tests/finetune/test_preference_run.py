"""Runs of objective dpo: planned, trained, stopped and gone on with, shared out, evaluated, merged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finetune.collate import Collator
from finetune.encoder import row_encoder
from finetune.lengths import check_lengths
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.plan import plan
from finetune.train import train_process
from lensmith.dataset import read_split
from lensmith.errors import InputError, StoppedEarly
from lensmith.sample import Text
from lensmith.signals import Noted
from lensmith.tokens import read_grid
from tests.artifacts import make_held_out
from tests.finetune.conftest import Training, TrainingMaker

pytestmark = pytest.mark.slow


def test_answers_win_over_rejected_ones(preferring: Training) -> None:
    lines = preferring.metrics()
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-5), "at first the policy is its reference"
    assert lines[0]["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["reward_margin"] > 0.5
    assert lines[-1]["reward_accuracy"] == 1.0
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_it_is_merged_and_proven_like_any_other(preferring: Training, bank_forms: Path) -> None:
    run = preferring.run()
    assert run.body["asked"]["train"]["objective"] == "dpo"
    model = merge(preferring.recipe, preferring.home, preferring.base, run)
    exam = make_held_out(preferring.home, bank_forms, 4)
    assert prove_merge(preferring.recipe, preferring.home, preferring.base, run, model, exam).passed


@pytest.mark.parametrize("variant", ["rslora", "dora"])
def test_other_forms_of_lora(
    new_training: TrainingMaker, preferences: dict[str, Any], bank_forms: Path, variant: str
) -> None:
    """They begin at their reference, the base without them, and what they learn is merged."""
    lora = {"rank": 4, "alpha": 8.0, "variant": variant}
    training = new_training(**{**preferences, "train__lora": lora, "train__max_steps": 2})
    first, last = training.metrics()
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last["reward_margin"] > 0.5
    run = training.run()
    config = json.loads((run.path / "adapter_config.json").read_bytes())
    assert (config["use_rslora"], config["use_dora"]) == (variant == "rslora", variant == "dora")
    learnt = load_file(run.path / "adapter_model.safetensors")
    assert any("magnitude" in name for name in learnt) == (variant == "dora")
    model = merge(training.recipe, training.home, training.base, run)
    exam = make_held_out(training.home, bank_forms, 4)
    assert prove_merge(training.recipe, training.home, training.base, run, model, exam).passed


def test_told_to_stop_and_gone_on_with(
    new_training: TrainingMaker, preferences: dict[str, Any], preferring: Training
) -> None:
    """SIGTERM is noted while the third batch is made; in two passes a step, which count as one batch."""
    halved = {"train__batch_size": 2, "train__gradient_accumulation": 2, "train__max_steps": 3}
    training = new_training(**preferences | halved)
    noted, made, collate = Noted(), [], Collator.__call__

    def telling(self: Collator, rows: Any) -> Any:
        made.append(rows)
        noted.told = noted.told or len(made) == 3
        return collate(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collator, "__call__", telling)
        with pytest.raises(StoppedEarly, match="stopped at step"):
            train_process(training.recipe, training.home, training.base, training.dataset, noted)
    assert training.run().record()["resumed_at"] > 0
    assert training.losses() == pytest.approx(preferring.losses()[:3], abs=1e-5)


def test_in_4_bits_the_reference_is_the_base_in_4_bits(
    new_training: TrainingMaker, preferences: dict[str, Any]
) -> None:
    training = new_training(**preferences | {"train__method": "qlora", "train__max_steps": 2})
    assert training.losses()[0] == pytest.approx(math.log(2), abs=1e-5)
    assert training.metrics()[-1]["reward_margin"] > 0
    assert training.run().record()["linears_in_4_bits"] == 14


FROZEN = {"vision": "freeze", "connector": "freeze", "language": "adapt"}


def test_frozen_towers_are_run_once_for_both_answers(
    new_training: TrainingMaker, preferences: dict[str, Any]
) -> None:
    """They are kept in less than an epoch: a pair would have its images run four times."""
    settings = preferences | {"train__towers": FROZEN, "train__batch_size": 16, "train__max_steps": 2}
    kept, anew = new_training(**settings), new_training(**settings, train__image_features_gib=0)
    assert kept.losses() == pytest.approx(anew.losses(), abs=1e-5)
    assert len(read_split(kept.dataset, "train").epoch()) > 32
    assert kept.run().record()["image_features"] > 0 == anew.run().record()["image_features"]


def test_it_is_evaluated_while_it_trains(
    new_training: TrainingMaker, preferences: dict[str, Any], preferring: Training
) -> None:
    """By answers of the model with its adapter; the losses are those of a training without."""
    evaluate = {"every": 2, "rows": 2, "metric": "character_error_rate"}
    training = new_training(**preferences | {"train__max_steps": 3}, train__evaluate=evaluate)
    assert training.losses() == preferring.losses()[:3]
    assert [each["step"] for each in training.run().body["evaluation"]["scores"]] == [2, 3]


def test_the_plan_counts_both_answers(new_training: TrainingMaker, preferring: Training) -> None:
    recipe, dataset = preferring.recipe, preferring.dataset
    planned = plan(recipe, dataset)
    encoder = row_encoder(recipe, recipe.base.path)
    rows = read_split(dataset, "train")
    encoded = [encoder.encode(row) for row in rows]
    others = [each.rejected for each in encoded if each.rejected is not None]
    assert len(others) == len(encoded)
    longest = [max(len(a.labels), len(b.labels)) for a, b in zip(encoded, others, strict=True)]
    assert planned.rows.longest.total == max(longest)
    assert planned.rows.text_tokens + planned.rows.image_tokens + planned.rows.answer_tokens == sum(longest)
    answers = recipe.model_copy(update={"train": recipe.train.model_copy(update={"objective": "answers"})})
    once = plan(answers, dataset).memory
    assert 1.8 < planned.memory.activations / once.activations < 2.3
    assert 1.5 < planned.memory.logits / once.logits < 2.5


def test_what_stops_the_training_stops_the_plan(new_training: TrainingMaker) -> None:
    """Rows without a rejected answer, and rows that are too long, are told together."""
    alone = new_training(train__objective="dpo", train__max_length=70)
    for each in (lambda: plan(alone.recipe, alone.dataset), alone.run):
        with pytest.raises(InputError, match=r"longer than train\.max_length 70; .* have no rejected answer"):
            each()


def test_a_rejected_answer_that_is_too_long_is_told(preferring: Training) -> None:
    """Counted as it is encoded, and by preparation too, which counts with the same encoder."""
    recipe = preferring.recipe
    row = read_split(preferring.dataset, "train")[0]
    answer = replace(row.sample.messages[-1], rejected=(Text("word" + 99 * " word"),))
    longer = replace(row, sample=replace(row.sample, messages=(*row.sample.prompt, answer)))
    encoder = row_encoder(recipe, recipe.base.path)
    grid = read_grid(recipe.base.path, recipe.model_family, recipe.pixel_budget)
    counted = encoder.tokens_of([row, longer], grid)
    other = encoder.encode(longer).rejected
    assert other is not None
    assert counted[1].total == len(other.labels) > counted[0].total
    with pytest.raises(InputError, match="1 row is longer"):
        list(check_lengths(counted, counted[1].total - 1))
    encoder.max_length = counted[1].total - 1
    with pytest.raises(InputError, match="1 row is longer"):
        encoder.encode(longer)
