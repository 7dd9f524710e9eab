"""Training through the real `accelerate launch`: killed, stopped, gone on from; its errors are ours."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from finetune import checkpoint as checkpoints
from finetune.launch import SCRIPT, accelerate_command, train
from finetune.launcher import read_launcher
from finetune.live import read_progress, write_progress
from finetune.run import run_key
from lensmith.errors import InputError, IntegrityError
from tests.finetune.conftest import Training, TrainingMaker

MARK = "LENSMITH_TEST_MARK"


def test_progress_passes_between_processes(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, 3, 20)
    assert read_progress(tmp_path) == (3, 20)
    (tmp_path / "progress.txt").write_text("")
    assert read_progress(tmp_path) is None


def with_launcher(training: Training, path: Path, **settings: Any) -> Training:
    import dataclasses

    content = yaml.safe_load(training.recipe.train.launcher.read_text())
    path.write_text(yaml.safe_dump({**content, **settings}))
    settings_of_train = training.recipe.train.model_copy(update={"launcher": path})
    recipe = training.recipe.model_copy(update={"train": settings_of_train})
    return dataclasses.replace(training, recipe=recipe)


def launched(training: Training, *settings: str) -> Any:
    return train(
        training.recipe, training.recipe_path, settings, training.home, training.base, training.dataset
    )


# Ends as a process does that aborts while Python takes itself apart.
ABORTS = """
import os, sys
from pathlib import Path
from lensmith.home import Home
home, key, base, dataset = Home(Path(sys.argv[1])), *sys.argv[2:]
if key:
    inputs = {"base": home.by_id(base), "dataset": home.by_id(dataset)}
    with home.create("run", key, inputs) as draft:
        draft.body.update(method="lora")
os.abort()
"""


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_process_does_behind_a_whole_run_takes_nothing_back(
    new_training: TrainingMaker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    whole: bool,
) -> None:
    training = new_training()
    key = run_key(training.recipe, training.base, training.dataset)
    words = [str(training.home.root), key if whole else "", training.base.id, training.dataset.id]
    command = [sys.executable, "-c", ABORTS, *words]
    monkeypatch.setattr("finetune.launch.accelerate_command", lambda *_: command)
    if whole:
        assert launched(training).manifest.key == key
        assert "the run is whole; a process ended with 134 behind it" in capsys.readouterr().err
    else:
        with pytest.raises(RuntimeError, match="exit code 134"):
            launched(training)


@pytest.fixture
def two_processes(
    new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path
) -> dict[str, Any]:
    return {
        **deepspeed_config,
        "deepspeed_config": {**deepspeed_config["deepspeed_config"], "zero_stage": 2},
    }


def test_taken_port(new_training: TrainingMaker, two_processes: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        training = with_launcher(
            new_training(), tmp_path / "l.yaml", **{**two_processes, "main_process_port": port}
        )
        with pytest.raises(InputError, match=f"port {port} is in use"):
            launched(training)


def test_free_ports_are_found(
    two_processes: dict[str, Any], new_training: TrainingMaker, tmp_path: Path
) -> None:
    training = with_launcher(new_training(), tmp_path / "l.yaml", **two_processes)
    launcher = read_launcher(training.recipe.train.launcher)
    command = accelerate_command(launcher, training.recipe_path, ["a=b"], training.home)
    port = int(command[command.index("--main_process_port") + 1])
    assert port > 1024
    assert command[-2:] == ["-s", "a=b"]


def test_several_machines_are_started_by_hand(
    two_processes: dict[str, Any], new_training: TrainingMaker, tmp_path: Path
) -> None:
    training = with_launcher(new_training(), tmp_path / "l.yaml", **{**two_processes, "num_machines": 2})
    with pytest.raises(InputError, match="2 machines") as error:
        launched(training, "train.seed=3")
    assert "--machine_rank N" in str(error.value)
    # As a shell splits it: -s and its value are two words.
    words = shlex.split(error.value.problems[0].what)
    assert words[words.index("--machine_rank") - 1].endswith("l.yaml")
    assert words[-2:] == ["-s", "train.seed=3"]
    assert any(word.endswith("scripts/train.py") for word in words)


@pytest.mark.slow
def test_the_childs_error_is_ours(new_training: TrainingMaker) -> None:
    training = new_training(train__max_length=70)
    with pytest.raises(InputError, match=r"longer than train\.max_length 70") as error:
        launched(training)
    assert len(str(error.value).splitlines()) <= 12
    assert training.home.all("run") == []


def test_checkpoints_that_a_kill_left_beside_the_run_are_removed(new_training: TrainingMaker) -> None:
    training = new_training()
    key = run_key(training.recipe, training.base, training.dataset)
    with training.home.create("run", key, {"base": training.base, "dataset": training.dataset}) as draft:
        draft.body.update(method="lora")
    # As between the rename that makes the run whole and the removal of what it was made from.
    work = training.home.work_path(key)
    (work / "checkpoint-3").mkdir(parents=True)
    (work / "checkpoint-3" / "optimizer.pt").write_bytes(b"state")
    assert launched(training).id == draft.artifact.id
    assert not work.exists()


@pytest.mark.slow
def test_a_recipe_that_changes_during_the_command(new_training: TrainingMaker) -> None:
    """The launcher has read the recipe; the process that it launches reads another one."""
    training = new_training()
    text = training.recipe_path.read_text()
    training.recipe_path.write_text(text.replace("learning_rate: 0.01", "learning_rate: 0.02"))
    assert training.recipe_path.read_text() != text
    with pytest.raises(IntegrityError, match="changed while this command ran") as error:
        launched(training)
    key = run_key(training.recipe, training.base, training.dataset)
    assert f"launched for key {key[:12]}, finds key" in str(error.value)
    assert "run it again" in str(error.value)
    assert training.home.all("run") == []


def start(training: Training, command: list[str], mark: str) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, as from a shell."""
    log = (training.home.root / "test.log").open("ab")
    return subprocess.Popen(
        command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, MARK: mark}
    )


def survivors(mark: str) -> list[str]:
    """What of a command is still alive ten seconds after its end."""
    deadline = time.monotonic() + 10
    while True:
        found: list[str] = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def wait_for_step(training: Training, step: int, process: subprocess.Popen[bytes]) -> None:
    work = training.home.work_path(run_key(training.recipe, training.base, training.dataset))
    deadline = time.monotonic() + 240
    while True:
        # Not `last_whole`, which reads every checkpoint: again and again, that takes the training's core.
        if max(checkpoints.sealed_steps(work), default=0) >= step:
            return
        log = (training.home.root / "test.log").read_text()
        assert process.poll() is None, f"ended before step {step}: {log[-2000:]}"
        assert time.monotonic() < deadline, f"no step {step}: {log[-2000:]}"
        time.sleep(0.02)


STEPS = 40


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_to_the_same_end(new_training: TrainingMaker) -> None:
    unbroken = new_training(train__max_steps=STEPS).run()
    training = new_training(train__max_steps=STEPS)
    script = [str(SCRIPT), str(training.recipe_path), "--home", str(training.home.root)]

    process = start(training, [sys.executable, *script], "stopped")
    wait_for_step(training, 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert survivors("stopped") == []
    log = (training.home.root / "test.log").read_text()
    assert "Traceback" not in log

    work = training.home.work_path(unbroken.manifest.key)
    stopped = checkpoints.last_whole(work)
    assert stopped is not None
    assert f"stopped at step {stopped[1].step}: all that was learned is saved" in log
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    config = ["--config_file", str(training.recipe.train.launcher)]
    process = start(training, [*launch, *config, *script], "killed")
    wait_for_step(training, stopped[1].step + 2, process)
    # Only accelerate itself, as an operator's kill -9 does: the training process must not live on alone.
    process.kill()
    process.wait()
    assert survivors("killed") == []
    killed = checkpoints.last_whole(work)
    assert killed is not None
    assert stopped[1].step < killed[1].step < STEPS, "killed in the middle of the training"

    run = launched(training)
    assert run.manifest.key == unbroken.manifest.key
    assert run.body["final_loss"] == pytest.approx(unbroken.body["final_loss"], abs=1e-6)
    assert run.record()["resumed_at"] >= killed[1].step
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
