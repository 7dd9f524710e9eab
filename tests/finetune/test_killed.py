"""A training process that is killed: the others end, one error names it, and the same command goes on."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune import launch
from finetune.killed import Killed, killed_process, was_killed, without_launcher
from finetune.launch import train
from finetune.live import read_progress
from finetune.run import run_key
from lensmith.errors import LensmithError
from tests.conftest import ROOT
from tests.e2e.command import Command
from tests.e2e.command import start as start_command
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_distributed import assert_deepspeed, launcher

OF_SEVERAL = """\
W1122 22:50:01 torch/distributed/elastic/multiprocessing/api.py] Sending process {pid} closing signal SIGTERM
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
scripts/train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-22_22:50:01
  host      : localhost
  rank      : 3 (local_rank: 3)
  exitcode  : -9 (pid: 83) (SIGKILL)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 83
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-22_22:50:00
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 80)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
ALONE = """\
step 3
Traceback (most recent call last):
  File "launch.py", line 1303, in simple_launcher
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)
subprocess.CalledProcessError: Command '['python', 'scripts/train.py']' {}.
"""


def test_of_several() -> None:
    """What failed because another was gone, or was ended by the launcher, was not killed from outside."""
    assert killed_process(OF_SEVERAL.format(pid=80, code=1)) == Killed(3, signal.SIGKILL)
    assert killed_process(OF_SEVERAL.format(pid=80, code=-15)) == Killed(3, signal.SIGKILL)
    assert killed_process(OF_SEVERAL.format(pid=83, code=1)) is None
    assert without_launcher(OF_SEVERAL) == OF_SEVERAL


def test_alone() -> None:
    log = ALONE.format("died with <Signals.SIGSEGV: 11>")
    assert killed_process(log) == Killed(0, signal.SIGSEGV)
    log = ALONE.format("returned non-zero exit status 1")
    assert killed_process(log) is None
    assert without_launcher(log) == "step 3\n"


def test_what_is_told() -> None:
    told = str(was_killed(Killed(3, signal.SIGKILL), 8, 40))
    assert "training process 3 of 8 (counted from 0) was killed" in told
    assert "ended by SIGKILL" in told
    assert "dmesg" in told
    assert "goes on from step 40" in told
    waited = str(was_killed(Killed(0, signal.SIGABRT), 8, 40))
    assert "longer than train.collective_timeout" in waited
    assert "begins again: there is no checkpoint yet" in str(was_killed(Killed(0, signal.SIGBUS), 1, None))


def training_process(command: Command, rank: int) -> psutil.Process:
    """The process of that rank below a running command."""
    for each in psutil.Process(command.process.pid).children(recursive=True):
        words = each.cmdline()
        trains = any(word.endswith("scripts/train.py") for word in words) and "launch" not in " ".join(words)
        if trains and each.environ().get("RANK", "0") == str(rank):
            return each
    raise AssertionError(f"no process of rank {rank}: {command.err}")


def wait_for_step(training: Training, step: int, command: Command) -> None:
    """Until the checkpoint after `step` is sealed."""
    work = training.home.work_path(run_key(training.recipe, training.base, training.dataset))
    deadline = time.monotonic() + 500
    while (read_progress(work) or (0, 0))[0] <= step:
        assert command.process.poll() is None, command.err
        assert time.monotonic() < deadline, f"no step {step}"
        time.sleep(0.02)


def killed_in_a_step(training: Training, rank: int, within: float) -> str:
    """Start `lensmith train`, kill one of its processes after step 2; what it says, `within` seconds."""
    command = start_command(["train", str(training.recipe_path), "--home", str(training.home.root)])
    try:
        wait_for_step(training, 2, command)
        training_process(command, rank).kill()
        began = time.monotonic()
        assert command.wait(300) == 1, command.err
        assert time.monotonic() - began < within
        assert command.survivors() == []
    finally:
        command.signal_group(signal.SIGKILL)
    assert "Traceback" not in command.err
    return command.err


# Elastic's agent gives the others 30 seconds after SIGTERM; then it kills them.
BOUND_S = 60.0


@pytest.mark.slow
def test_one_of_two(new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path) -> None:
    settings = {"train__max_steps": 8, "train__learning_rate": 0.001, "train__save_every": 1}
    config = launcher(tmp_path / "zero2.yaml", deepspeed_config, 2)
    training = new_training(**settings, train__launcher=config, train__batch_size=1)
    err = killed_in_a_step(training, 1, BOUND_S)
    assert "training process 1 of 2 (counted from 0) was killed\n  - process 1: ended by SIGKILL" in err
    last = re.search(r"goes on from step (\d+)", err)
    assert last is not None
    train(training.recipe, training.recipe_path, (), training.home, training.base, training.dataset)
    run = training.run()
    assert run.record()["resumed_at"] == int(last.group(1)) >= 2
    assert_deepspeed(run, 2)
    assert training.losses() == pytest.approx(new_training(**settings).losses(), abs=1e-4)


@pytest.mark.slow
def test_one_of_two_that_fails(
    new_training: TrainingMaker,
    deepspeed_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By no error of ours: what it raised is told, not what the other one raised when it was gone."""
    config = launcher(tmp_path / "zero2.yaml", deepspeed_config, 2)
    training = new_training(train__launcher=config, train__batch_size=1)
    monkeypatch.setattr(launch, "SCRIPT", ROOT / "tests/finetune/train_failing.py")
    began = time.monotonic()
    with pytest.raises(LensmithError, match=r"training process 1 of 2 \(counted from 0\) failed") as error:
        train(training.recipe, training.recipe_path, (), training.home, training.base, training.dataset)
    assert time.monotonic() - began < BOUND_S
    problem, log = error.value.problems
    assert "Stale file handle" in Path(log.where).read_text()
    assert problem.where == "process 1"
    assert problem.what == "OSError: Stale file handle (os error 116)"
    assert error.value.exit_code == 1


@pytest.mark.slow
def test_the_only_one(new_training: TrainingMaker) -> None:
    err = killed_in_a_step(new_training(train__max_steps=60, train__save_every=1), 0, BOUND_S)
    assert "training process 0 of 1 (counted from 0) was killed\n  - process 0: ended by SIGKILL" in err
