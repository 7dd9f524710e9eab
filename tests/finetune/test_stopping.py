"""SIGTERM: the step is saved, every process ends with 0, the next start goes on exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import finetune.launch
import finetune.train
from finetune import checkpoint as checkpoints
from finetune.live import read_progress
from finetune.run import run_key
from finetune.train import train_process
from lensmith.errors import StoppedEarly
from lensmith.signals import Noted, Stopped
from tests.conftest import ROOT
from tests.finetune.conftest import LONGER, Training, TrainingMaker, assert_same_run
from tests.finetune.test_distributed import TOLERANCE, launcher

pytestmark = pytest.mark.slow


def work_of(training: Training) -> Path:
    return training.home.work_path(run_key(training.recipe, training.base, training.dataset))


class TermAt(TrainerCallback):
    """Sends this process SIGTERM in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def noted() -> Iterator[Noted]:
    """SIGTERM is noted, as scripts/train.py has it."""
    found = Noted()
    before = signal.signal(signal.SIGTERM, found.note)
    yield found
    signal.signal(signal.SIGTERM, before)


def told_at(step: int, training: Training, noted: Noted, monkeypatch: pytest.MonkeyPatch) -> None:
    make = finetune.train.make_trainer

    def with_signal(*arguments: Any) -> Any:
        trainer, tracker = make(*arguments)
        trainer.add_callback(TermAt(step))
        return trainer, tracker

    with monkeypatch.context() as patch:
        patch.setattr(finetune.train, "make_trainer", with_signal)
        train_process(training.recipe, training.home, training.base, training.dataset, noted)


def test_the_step_is_saved_and_gone_on_from(
    new_training: TrainingMaker, unbroken: Training, noted: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(**LONGER, train__save_every=100)
    with pytest.raises(StoppedEarly, match="stopped at step 2: all that was learned is saved"):
        told_at(2, training, noted, monkeypatch)
    last = checkpoints.last_whole(work_of(training))
    assert last is not None
    assert last[1].step == 2
    assert training.home.all("run") == []
    assert_same_run(training, unbroken)
    assert training.run().record()["resumed_at"] == 2


def test_told_in_its_last_step_it_is_finished(
    new_training: TrainingMaker, noted: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(train__max_steps=1)
    told_at(1, training, noted, monkeypatch)
    assert noted.told
    assert len(training.home.all("run")) == 1


def test_told_before_its_first_step(
    new_training: TrainingMaker, noted: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training()
    monkeypatch.setattr(finetune.train, "load_model", None)
    noted.told = True
    with pytest.raises(StoppedEarly, match="stopped at step 0"):
        train_process(training.recipe, training.home, training.base, training.dataset, noted)


STEPS = 16


def wait_for_step(training: Training, process: subprocess.Popen[Any], log: Path) -> None:
    work, deadline = work_of(training), time.monotonic() + 200
    while (read_progress(work) or (0, 0))[0] < 2:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


def trained_by(process: subprocess.Popen[bytes], rank: str) -> psutil.Process:
    """The process below `process` that trains as `rank`."""
    below = psutil.Process(process.pid).children(recursive=True)
    found = [
        each for each in below if each.environ().get("RANK") == rank and "train.py" in str(each.cmdline())
    ]
    assert len(found) == 1
    return found[0]


def lensmith(*words: str) -> list[str]:
    return [sys.executable, "-c", "from lensmith.cli.main import entry; entry()", *words]


def test_two_processes_of_which_one_is_told(
    new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    """Preempted node by node: the others would wait for it in the middle of the next step."""
    single = new_training(train__max_steps=STEPS)
    config = launcher(tmp_path / "zero2.yaml", deepspeed_config, 2)
    training = new_training(
        train__launcher=config, train__batch_size=1, train__max_steps=STEPS, train__save_every=100
    )
    log = tmp_path / "log"
    words = lensmith("train", str(training.recipe_path), "--home", str(training.home.root))
    with log.open("ab") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, cwd=ROOT)
        try:
            wait_for_step(training, process, log)
            trained_by(process, "1").send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()[-3000:]
        finally:
            process.kill()
    last = checkpoints.last_whole(work_of(training))
    assert last is not None
    assert 0 < last[1].step < STEPS, "stopped in the middle"
    assert f"lensmith: stopped at step {last[1].step}" in log.read_text()
    assert subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert training.run().record()["resumed_at"] == last[1].step
    assert training.losses() == pytest.approx(single.losses(), abs=TOLERANCE)


def test_lensmith_run_goes_no_further(new_training: TrainingMaker, tmp_path: Path) -> None:
    training = new_training(train__max_steps=400, train__save_every=1000)
    words = lensmith("run", str(training.recipe_path), "--home", str(training.home.root), "--json")
    with (tmp_path / "log").open("ab") as out:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=out, cwd=ROOT, text=True)
        try:
            wait_for_step(training, process, tmp_path / "log")
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert '"stopped"' in told
    log = (tmp_path / "log").read_text()
    assert "the same command, given again, goes on" in log
    assert "merge" not in log
    assert checkpoints.last_whole(work_of(training)) is not None
    assert {each.kind for each in training.home.all()} & {"run", "model", "release"} == set()


# Starts a process that does not stop when it is told to.
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
LAUNCHES = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {DEAF!r}])"


def test_what_does_not_stop_in_the_recipes_time_is_ended(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    training = new_training(train__stop_grace=1)
    log = training.home.root / "logs"

    def stopped(*_: Any) -> int:
        while not any("deaf" in path.read_text() for path in log.glob("*.log")):
            time.sleep(0.05)
        raise Stopped

    end = finetune.launch.stop_tree
    monkeypatch.setattr(finetune.launch, "accelerate_command", lambda *_: [sys.executable, "-c", LAUNCHES])
    monkeypatch.setattr(finetune.launch, "_watch", stopped)
    monkeypatch.setattr(finetune.launch, "stop_tree", lambda child: end(child, 0.2))
    began = time.monotonic()
    with pytest.raises(Stopped):
        finetune.launch.train(
            training.recipe, training.recipe_path, (), training.home, training.base, training.dataset
        )
    assert time.monotonic() - began < 30
    assert "not saved within 1 s (train.stop_grace): ended" in capfd.readouterr().err
