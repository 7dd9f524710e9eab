"""The tracker never fails a run: offline by itself or where no service is reached, let go when lost."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

import finetune.tracker
from finetune.examiner import Examiner
from finetune.scores import Scored
from finetune.tracker import Tracker
from lensmith.recipe import load_recipe
from tests.conftest import RecipeMaker
from tests.finetune.conftest import TrainingMaker

ENTRY = {
    "epoch": 0.1,
    "loss": 2.5,
    "learning_rate": 0.01,
    "grad_norm": 1.0,
    "mean_token_accuracy": 0.5,
    "num_input_tokens_seen": 7,
}


class Run:
    """A wandb run whose calls named `broken` raise; `told` are those that were made."""

    def __init__(self, broken: str, error: Exception) -> None:
        self.broken = broken
        self.error = error
        self.told: list[str] = []

    def _call(self, name: str) -> None:
        self.told.append(name)
        if name == self.broken:
            raise self.error

    def log(self, line: dict[str, Any], step: int) -> None:
        self._call(next(iter(line)) if len(line) == 1 else "log")

    def finish(self) -> None:
        self._call("finish")


@pytest.fixture
def tracker(make_recipe: RecipeMaker, tmp_path: Path) -> Tracker:
    recipe = load_recipe(make_recipe(train__wandb="offline", train__log_every=1))
    examiner = Examiner.__new__(Examiner)
    examiner.metric, examiner.scores = "exact_match", [Scored(step=2, value=0.5, rows=1)]
    return Tracker(recipe, "0" * 64, tmp_path, examiner)


def steps(tracker: Tracker, folder: Path, number: int) -> None:
    """As the trainer tells of `number` steps and the end."""
    arguments, state, control = TrainingArguments(folder), TrainerState(max_steps=number), TrainerControl()
    for step in range(1, number + 1):
        state.global_step = step
        state.log_history.append({**ENTRY, "step": step})
        tracker.on_log(arguments, state, control, logs=state.log_history[-1])
        tracker.on_step_end(arguments, state, control)
    tracker.on_train_end(arguments, state, control)


@pytest.mark.parametrize(
    ("broken", "told", "step"),
    [
        ("log", ["log"], 1),
        ("validation/exact_match", ["log", "log", "validation/exact_match"], 2),
        ("finish", ["log", "log", "validation/exact_match", "log", "finish"], 3),
    ],
)
def test_lost_midway(
    tracker: Tracker,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    broken: str,
    told: list[str],
    step: int,
) -> None:
    run = Run(broken, BrokenPipeError("the service\nis gone"))
    tracker.run, tracker.status = run, "online"
    steps(tracker, tmp_path, 3)
    assert run.told == told, "nothing is sent to what is lost"
    assert tracker.status == f"online; lost at step {step}: the service is gone"
    assert capfd.readouterr().err.count("the tracker is lost: training goes on without it") == 1


def test_what_is_told_whole_is_not_lost(tracker: Tracker, tmp_path: Path) -> None:
    run = Run("nothing", BrokenPipeError())
    tracker.run = run
    steps(tracker, tmp_path, 3)
    assert run.told == ["log", "log", "validation/exact_match", "log", "finish"]
    assert tracker.status == "offline"


def test_a_run_that_cannot_be_opened_at_all(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Tracker, mode: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tracker, "_open", full)
    state = TrainerState(global_step=4, is_world_process_zero=True)
    tracker.on_train_begin(TrainingArguments(tmp_path), state, TrainerControl())
    assert tracker.run is None
    assert tracker.status.startswith("offline: [Errno 28] No space")
    assert "; lost at step 4: [Errno 28] No space" in tracker.status


@pytest.mark.slow
def test_the_record_says_that_it_was_lost(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real one, whose service is killed after the first step."""
    import wandb

    training = new_training(train__wandb="offline", train__log_every=1)
    told = Tracker.on_log

    def killing(self: Tracker, *given: Any, **more: Any) -> None:
        told(self, *given, **more)
        for each in psutil.Process().children(recursive=True):
            if "wandb-core" in each.name():
                each.kill()
                each.wait(10)

    monkeypatch.setattr(Tracker, "on_log", killing)
    try:
        status = training.run().record()["wandb"]
    finally:
        # What later trainings of this process would ask again.
        with contextlib.suppress(Exception, SystemExit):
            wandb.teardown()
    assert status.startswith("offline; lost at step ")
    assert len(training.losses()) == 3


@pytest.mark.slow
def test_offline_leaves_its_files_in_the_home(new_training: TrainingMaker) -> None:
    training = new_training(train__wandb="offline", train__max_steps=1)
    assert training.run().record()["wandb"] == "offline"
    assert list(training.home.root.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.mark.slow
def test_unreachable_service(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(finetune.tracker, "PATIENCE_S", 2.0)
    training = new_training(train__wandb="online", train__max_steps=1)
    assert training.run().record()["wandb"].startswith("offline: ")
    assert list(training.home.root.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.mark.slow
def test_disabled_writes_nothing(new_training: TrainingMaker) -> None:
    training = new_training(train__max_steps=1)
    assert training.run().record()["wandb"] == "disabled"
    assert not (training.home.root / "wandb").exists()
