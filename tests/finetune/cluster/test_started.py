"""What is written is started, with the real accelerate and training: on one machine and on two.

The "machines" are two starts on this one that meet at a port of it. Each ends in the run that one process
alone makes: the same key, the same losses.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import checkpoint as checkpoints
from finetune.cluster.job import Target, Wishes, make_job
from finetune.cluster.write import write_job
from finetune.run import run_key
from lensmith.home import Home
from tests.conftest import ROOT
from tests.finetune.cluster.test_program import SLURM
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_distributed import TOLERANCE, assert_deepspeed, launcher

pytestmark = pytest.mark.slow


def write(training: Training, target: Target, folder: Path) -> Path:
    job = make_job(target, training.recipe, training.recipe_path, (), training.home, Wishes())
    return write_job(job, folder)


def start(words: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A start in a process group of its own, as a login or a batch system makes it."""
    place = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    with log.open("ab") as out:
        return subprocess.Popen(words, stdout=out, stderr=out, env=place, start_new_session=True)


def ends(processes: list[subprocess.Popen[bytes]], log: Path, seconds: float = 240) -> list[int]:
    """Their exit codes; nothing of them is left."""
    try:
        return [process.wait(seconds) for process in processes]
    except subprocess.TimeoutExpired:
        raise AssertionError(log.read_text()[-3000:]) from None
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def assert_trained(training: Training, losses: list[float], machines: int, log: Path) -> None:
    run = training.home.find("run", run_key(training.recipe, training.base, training.dataset))
    assert run is not None, log.read_text()[-3000:]
    assert_deepspeed(run, 2, machines)
    assert training.losses() == pytest.approx(losses, abs=TOLERANCE)


def test_local(
    new_training: TrainingMaker, lora_losses: list[float], deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    config = launcher(tmp_path / "zero2.yaml", deepspeed_config, 2)
    training = new_training(train__launcher=config, train__batch_size=1)
    log = tmp_path / "log"
    script = write(training, "local", tmp_path)
    assert ends([start(["bash", str(script)], log)], log) == [0], log.read_text()[-3000:]
    assert_trained(training, lora_losses, 1, log)


@pytest.fixture
def two_machines(new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path) -> Training:
    settings = {"num_machines": 2, "main_process_port": free_port()}
    config = launcher(tmp_path / "nodes.yaml", deepspeed_config, 2, **settings)
    return new_training(train__launcher=config, train__batch_size=1)


def test_torchrun(two_machines: Training, lora_losses: list[float], tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = str(write(two_machines, "torchrun", tmp_path))
    machines = [start(["bash", script, rank, "127.0.0.1", "try"], log) for rank in ("1", "0")]
    assert ends(machines, log) == [0, 0], log.read_text()[-3000:]
    assert_trained(two_machines, lora_losses, 2, log)


def test_homes_that_are_not_shared(two_machines: Training, tmp_path: Path) -> None:
    """Each machine has a home of its own, prepared and at the same path: without the check each would keep
    its part of every checkpoint."""
    log = tmp_path / "log"
    script = write(two_machines, "torchrun", tmp_path)
    other = Home(tmp_path / "other")
    shutil.copytree(two_machines.home.root, other.root)
    text = script.read_text().replace(str(two_machines.home.root), str(other.root))
    machines = [
        start(["bash", "-c", text, "x", "1", "127.0.0.1", "try"], log),
        start(["bash", str(script), "0", "127.0.0.1", "try"], log),
    ]
    assert ends(machines, log) == [2, 2], log.read_text()[-3000:]
    assert "process 1 of 2 does not see what process 0 writes" in log.read_text()
    work = two_machines.home.work_path(run_key(two_machines.recipe, two_machines.base, two_machines.dataset))
    assert not list(work.glob("shared-*"))
    assert not list(work.glob("checkpoint-*"))


STEPS = 30


def test_a_job_of_slurm_is_put_back(
    new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    """Warned before its time is over, it ends, is put back, and goes on to the end."""
    settings = {"num_machines": 2, "main_process_port": free_port()}
    config = launcher(tmp_path / "nodes.yaml", deepspeed_config, 2, **settings)
    training = new_training(train__launcher=config, train__batch_size=1, train__max_steps=STEPS)
    batch = write(training, "slurm", tmp_path).read_text()
    log = tmp_path / "log"
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "NODES": "2", "GIVEN": "2"}
    # Both nodes of this cluster are this machine.
    words = ["bash", "-c", f"cd {tmp_path}\n{SLURM.replace('first', '127.0.0.1')}{batch}"]
    process = start(words, log, **slurm)
    work = training.home.work_path(run_key(training.recipe, training.base, training.dataset))
    deadline = time.monotonic() + 200
    while not (work.is_dir() and checkpoints.last_whole(work)):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert ends([process], log) == [130], log.read_text()[-3000:]
    assert (tmp_path / "told").read_text().split() == ["--signal=TERM", "7", "requeue", "7"]
    stopped = checkpoints.last_whole(work)
    assert stopped is not None
    assert 0 < stopped[1].step < STEPS, "stopped in the middle"

    assert ends([start(words, log, **slurm, SLURM_RESTART_COUNT="1")], log) == [0], log.read_text()[-3000:]
    run = training.home.find("run", run_key(training.recipe, training.base, training.dataset))
    assert run is not None
    assert run.record()["resumed_at"] >= stopped[1].step
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == STEPS
    assert yaml.safe_load(lines[-1])["step"] == STEPS
