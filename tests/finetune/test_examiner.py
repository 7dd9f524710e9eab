"""Evaluation while training: only the choice of weights changes, and a resumed run chooses the same."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import finetune.examiner
import finetune.train
from finetune import checkpoint as checkpoints
from finetune.live import read_evaluations
from finetune.plan import plan
from finetune.possible import evaluation_problems
from finetune.run import run_key
from finetune.train import train_process
from lensmith.artifact import Artifact
from lensmith.errors import InputError, StoppedEarly
from lensmith.recipe import load_recipe
from lensmith.signals import Noted
from tests.conftest import RecipeMaker
from tests.finetune.conftest import LONGER, Training, TrainingMaker, assert_same_run
from tests.finetune.divided import Divided
from tests.finetune.examined import noting
from tests.finetune.test_distributed import assert_same_weights
from tests.finetune.test_train import broken_after

EVALUATE: dict[str, Any] = {"every": 2, "rows": 2, "metric": "character_error_rate"}


def assert_evaluated_as_alone(divided: Divided, alone: Training) -> None:
    """Two processes ask what one asks, are answered the same, and end where it ends, with the same weights.

    One has three of the rows, in three batches, the other one has two; some show an image, others do not;
    answers have several lengths.
    """
    with noting() as said:
        single = alone.run()
    run, theirs = divided.run("evaluated"), divided.said["evaluated"]
    assert run.body["evaluation"] == single.body["evaluation"]
    facts = run.body["evaluation"]
    assert facts["ended_early"]
    assert facts["chosen"] < run.body["steps"] < alone.recipe.train.max_steps
    evaluations = len(facts["scores"])
    assert [len(each) for each in theirs] == [3 * evaluations, 2 * evaluations]
    assert sorted(map(tuple, [*theirs[0], *theirs[1]])) == sorted(map(tuple, said))
    assert len({len(answer) for _, answer in said}) > 2
    assert_same_weights(run, single, "adapter_model.safetensors")


def assert_made_up_for(divided: Divided) -> None:
    """One process is told to stop while it asks, the others break off with it; what is left out is made up
    for before the first step."""
    for error in divided.errors["told"]:
        assert error is not None
        assert error.startswith("stopped at step 1")
    unbroken = divided.run("evaluated")
    assert divided.run("told again").id == unbroken.id
    first = unbroken.body["evaluation"]["scores"][0]["rows"]
    assert sum(len(each) for each in divided.said["told"]) < first, "they did not break off"


def work_of(training: Training) -> Path:
    return training.home.work_path(run_key(training.recipe, training.base, training.dataset))


def weights(run: Artifact) -> dict[str, torch.Tensor]:
    return load_file(run.path / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def evaluated(new_training: TrainingMaker) -> Training:
    """The training `unbroken` with evaluations after steps 2, 4 and 6."""
    training = new_training(**LONGER, train__evaluate=EVALUATE)
    training.run()
    return training


@pytest.mark.slow
def test_it_learns_as_without_it(
    evaluated: Training, unbroken: Training, new_training: TrainingMaker
) -> None:
    """Dropout draws random numbers in every step: those that evaluating drew would show."""
    assert evaluated.losses() == unbroken.losses()
    assert evaluated.run().manifest.key != unbroken.run().manifest.key
    to_its_end = new_training(**LONGER, train__evaluate={**EVALUATE, "keep_best": False})
    final = weights(unbroken.run())
    assert all(torch.equal(each, final[name]) for name, each in weights(to_its_end.run()).items())


@pytest.mark.slow
def test_the_best_weights_are_the_runs(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second evaluation is told to be the best: the run has the weights after that step."""
    judge, values = finetune.examiner.metric_values, iter([0.5, 0.2, 0.3])

    def planted(sums: Any) -> Any:
        return {**judge(sums), "character_error_rate": next(values)}

    settings = {"train__max_steps": 3, "train__schedule": "constant", "train__warmup": 0.0}
    evaluate = {**EVALUATE, "every": 1}
    training = new_training(**settings, train__evaluate=evaluate)
    with monkeypatch.context() as patch:
        patch.setattr(finetune.examiner, "metric_values", planted)
        run = training.run()
    assert run.body["evaluation"] == {
        "metric": "character_error_rate",
        "scores": [{"step": at, "value": value, "rows": 2} for at, value in ((1, 0.5), (2, 0.2), (3, 0.3))],
        "chosen": 2,
        "ended_early": False,
    }
    assert run.body["steps"] == 3
    shorter = weights(new_training(**{**settings, "train__max_steps": 2}).run())
    assert all(torch.equal(each, shorter[name]) for name, each in weights(run).items())


@pytest.mark.slow
def test_it_ends_where_nothing_is_gained(new_training: TrainingMaker) -> None:
    """An untaught model writes no field right: the first evaluation stays the best."""
    evaluate = {"every": 1, "rows": 2, "patience": 1}
    training = new_training(train__max_steps=9, train__evaluate=evaluate, train__save_every=100)
    run = training.run()
    assert run.body["steps"] == 2
    assert run.body["evaluation"]["metric"] == "field_f1"
    assert run.body["evaluation"]["ended_early"] is True
    assert run.body["evaluation"]["chosen"] == 1
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_resumed_run_chooses_the_same(
    new_training: TrainingMaker, evaluated: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(**LONGER, train__evaluate=EVALUATE)
    work = broken_after(3, training, monkeypatch)
    last = checkpoints.last_whole(work)
    assert last is not None
    assert [each.step for each in last[1].scores] == [2]
    # The best so far stays beside the last.
    assert checkpoints.sealed_steps(work) == [2, 3]
    assert_same_run(training, evaluated)
    assert training.run().id == evaluated.run().id


def stop_in_evaluation(training: Training, monkeypatch: pytest.MonkeyPatch, question: int) -> None:
    """Train until it is told to stop when it asks its `question`-th row; the step is 2."""
    noted, asked, greedy = Noted(), [], finetune.examiner.greedy

    def told(*arguments: Any, **named: Any) -> Any:
        asked.append(arguments)
        if len(asked) == question:
            noted.note(signal.SIGTERM, None)
        return greedy(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(finetune.examiner, "greedy", told)
        with pytest.raises(StoppedEarly, match="stopped at step 2"):
            train_process(training.recipe, training.home, training.base, training.dataset, noted)


@pytest.mark.slow
def test_told_to_stop_while_asking(
    new_training: TrainingMaker, evaluated: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is saved without its evaluation, which the next start makes up for before it goes on."""
    training = new_training(**LONGER, train__evaluate=EVALUATE, train__save_every=100)
    stop_in_evaluation(training, monkeypatch, question=1)
    last = checkpoints.last_whole(work_of(training))
    assert last is not None
    assert (last[1].step, last[1].scores) == (2, [])
    assert read_evaluations(work_of(training)) == []
    assert training.run().body["evaluation"] == evaluated.run().body["evaluation"]
    assert_same_run(training, evaluated)


@pytest.mark.slow
def test_what_is_made_up_for_ends_the_training(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to stop in the evaluation that would have ended it: the next start evaluates, and ends."""
    evaluate = {"every": 1, "rows": 2, "patience": 1}
    settings = {"train__max_steps": 9, "train__evaluate": evaluate, "train__save_every": 100}
    training = new_training(**settings)
    stop_in_evaluation(training, monkeypatch, question=2)
    run = training.run()
    assert (run.body["steps"], run.body["evaluation"]["chosen"]) == (2, 1)
    assert run.body["evaluation"]["ended_early"] is True
    assert [each["step"] for each in run.body["evaluation"]["scores"]] == [1, 2]
    assert len(training.losses()) == 2


@pytest.mark.slow
def test_packed_it_answers_the_same(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[list[str]] = []
    note = finetune.examiner.note_evaluation

    def noting(work: Path, line: str) -> None:
        note(work, line)
        lines.append(read_evaluations(work))

    monkeypatch.setattr(finetune.examiner, "note_evaluation", noting)
    evaluate = {**EVALUATE, "every": 3}
    padded = new_training(train__evaluate=evaluate).run()
    packed = new_training(train__evaluate=evaluate, train__pack_length=1024).run()
    assert packed.manifest.key == padded.manifest.key
    ours, theirs = (each.body["evaluation"]["scores"][0]["value"] for each in (packed, padded))
    assert ours == pytest.approx(theirs, abs=0.01)
    assert len(lines) == 2
    assert lines[0][0].startswith(
        f"step 3: character error rate {theirs:.4f} (the best so far), 2 validation"
    )


def test_what_cannot_be_evaluated(
    make_recipe: RecipeMaker,
    deepspeed_config: dict[str, Any],
    tmp_path: Path,
    new_training: TrainingMaker,
) -> None:
    """All of it before a weight is loaded."""
    settings = {**deepspeed_config["deepspeed_config"], "zero_stage": 3}
    path = tmp_path / "zero3.yaml"
    path.write_text(yaml.safe_dump({**deepspeed_config, "deepspeed_config": settings}))
    training = new_training()
    rows = {**training.dataset.body["rows"], "validation": 0}
    manifest = training.dataset.manifest.model_copy(update={"body": {**training.dataset.body, "rows": rows}})
    empty = Artifact(training.dataset.path, manifest)
    asked: dict[str, Any] = {"train__method": "qlora", "train__evaluate": {"every": 5}}
    asked |= {"train__launcher": str(path), "serve__max_model_len": 1025, "train__max_length": 1026}
    recipe = load_recipe(make_recipe(**asked), ["data.answer=text"])
    wrong = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(
                update={"evaluate": recipe.train.evaluate.model_copy(update={"metric": "field_f1"})}
            )
        }
    )
    with pytest.raises(InputError, match=r"cannot be trained with .*zero3\.yaml") as error:
        plan(wrong, empty)
    assert "train.evaluate: the dataset has no validation rows" in str(error.value)
    assert "train.evaluate.metric: field_f1 says nothing of text answers" in str(error.value)
    assert "train.launcher: a base in 4 bits cannot be trained so" in str(error.value)
    assert "serve.max_model_len: 1,025 tokens, tiny has positions for 1,024" in str(error.value)
    assert "train.max_length: 1,026 tokens, tiny has positions for 1,024" in str(error.value)
    assert evaluation_problems(recipe, training.dataset) == []


def test_patience_without_evaluations_is_told(make_recipe: RecipeMaker) -> None:
    with pytest.raises(InputError, match="patience counts evaluations: set every"):
        load_recipe(make_recipe(train__evaluate={"patience": 2}))


def test_the_key_knows_what_chooses_the_weights(new_training: TrainingMaker) -> None:
    training = new_training()

    def key(**evaluate: Any) -> str:
        changed = training.recipe.train.evaluate.model_copy(update=evaluate)
        train = training.recipe.train.model_copy(update={"evaluate": changed})
        return run_key(training.recipe.model_copy(update={"train": train}), training.base, training.dataset)

    assert key(rows=7) == key()
    assert len({key(), key(every=2), key(every=3), key(every=2, rows=7), key(every=2, patience=1)}) == 5
