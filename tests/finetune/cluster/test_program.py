"""The bash around the training: its words, its signals, its exit code. Here it starts a small program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from finetune.cluster.job import Job
from finetune.cluster.jobset import jobset_manifest
from finetune.cluster.script import local_script, torchrun_script
from finetune.cluster.slurm import slurm_script
from lensmith.errors import InputError, IntegrityError
from lensmith.failure import write_failure
from tests.conftest import ROOT
from tests.finetune.cluster.jobs import HOSTILE, ZERO3, job
from tests.finetune.cluster.test_jobset import container, expanded

pytestmark = pytest.mark.slow

# Stands where accelerate does, in the words it is started with and in having the training as its child.
LAUNCHER = """
import json, os, signal, subprocess, sys, time
if sys.argv[2] == "lensmith.failure":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
if sys.argv[2] == "lensmith.undisturbed":
    signal.signal(signal.SIGTERM, lambda *told: None)
place = {place!r}
with open(f"{{place}}/words.json", "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
worker = '''
import signal, sys, time
def stop(number, frame):
    open(sys.argv[1], "a").write("told ")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[2], "w").close()
time.sleep({seconds})
'''
child = subprocess.Popen([sys.executable, "-c", worker, f"{{place}}/worker", f"{{place}}/started"])
child.wait()
{then}
sys.exit(1 if child.returncode else {code})
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a home and a program that stands for accelerate."""
    folder = tmp_path / HOSTILE.replace("/", "-")
    (folder / "home/artifacts").mkdir(parents=True)
    return folder


def python(place: Path, code: int = 0, seconds: float = 0, then: str = "") -> str:
    program = place / "python"
    filled = LAUNCHER.format(python=sys.executable, place=str(place), code=code, seconds=seconds, then=then)
    program.write_text(f"#!{sys.executable}\n{filled}")
    program.chmod(0o755)
    return str(program)


def hostile(job: Callable[..., Job], place: Path, program: str, **changes: object) -> Job:
    return job(
        home=place / "home",
        recipe=place / "recipe.yaml",
        config=place / "config.yaml",
        script=place / "train.py",
        settings=(f"release.intended_use={HOSTILE}",),
        python=program,
        **changes,
    )


def start(text: str, place: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", text, "script", *arguments],
        cwd=place,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def local(place: Path, program: str, **changes: object) -> str:
    return local_script(hostile(lambda **all_of: job("local", **all_of), place, program, **changes))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_word_arrives_as_it_is(place: Path) -> None:
    process = start(local(place, python(place)), place)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    words, environment = json.loads((place / "words.json").read_text())
    assert words == [
        *("-m", "accelerate.commands.launch", "--quiet", "--config_file", str(place / "config.yaml")),
        *("--main_process_port", "0", str(place / "train.py"), str(place / "recipe.yaml")),
        *("--home", str(place / "home"), "-s", f"release.intended_use={HOSTILE}"),
    ]
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert int(environment["OMP_NUM_THREADS"]) >= 1
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert not list(place.rglob("pwned"))


def test_several_machines(place: Path) -> None:
    two = hostile(lambda **all_of: job("torchrun", nodes=2, **all_of), place, python(place))
    process = start(torchrun_script(two), place, "1", "first", "try-1")
    assert (process.wait(), process.communicate()[1]) == (0, "")
    words, environment = json.loads((place / "words.json").read_text())
    text = " ".join(words)
    assert "--machine_rank 1 --main_process_ip first --main_process_port 29500 --rdzv_backend static" in text
    assert "--deepspeed_multinode_launcher standard" in text
    assert environment["PET_RDZV_ID"] == "bank-forms-try-1"
    for wrong in ((), ("2", "first", "a"), ("x", "first", "a"), ("0", "first", "../a"), ("0", "first")):
        assert start(torchrun_script(two), place, *wrong).wait() == 2


def test_processes_on_cpus(place: Path) -> None:
    import dataclasses

    launcher = dataclasses.replace(ZERO3, kind="NO", processes=1, zero_stage=0, cpu=True)
    process = start(local(place, python(place), launcher=launcher, gpus=0), place, OMP_NUM_THREADS="3")
    assert process.wait() == 0
    words, environment = json.loads((place / "words.json").read_text())
    assert "--main_process_port" not in words
    assert (environment["DS_ACCELERATOR"], environment["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")
    assert environment["OMP_NUM_THREADS"] == "3"


def test_the_exit_code_of_the_training(place: Path) -> None:
    """accelerate ends with 1; what the training left of its error says which."""
    assert start(local(place, python(place, code=1)), place).wait() == 1
    for error in (InputError("wrong"), IntegrityError("changed")):
        write_failure(place / "error.json", error)
        left = "import shutil; shutil.copy('error.json', os.environ['LENSMITH_ERROR_FILE'])"
        assert start(local(place, python(place, code=1, then=left)), place).wait() == error.exit_code


def test_the_error_of_another_machine(place: Path) -> None:
    """This one has only seen the other leave."""
    two = hostile(lambda **all_of: job("torchrun", nodes=2, **all_of), place, python(place, code=1))
    (place / "home/logs").mkdir()
    write_failure(place / "home/logs/launch-bank-forms-a.0.json", InputError("wrong"))
    assert start("sleep() { :; }\n" + torchrun_script(two), place, "1", "first", "a").wait() == 2


def test_without_a_home(place: Path) -> None:
    (place / "home/artifacts").rmdir()
    process = start(local(place, python(place)), place)
    assert process.wait() == 2
    assert f"no Lensmith home at {place / 'home'}" in process.communicate()[1]
    assert not (place / "words.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(place: Path, number: signal.Signals) -> None:
    """The training is told, once, not accelerate, which would give it no time; 130 says that it can go on."""
    process = start(local(place, python(place, seconds=60)), place)
    wait_for(place / "started")
    process.send_signal(number)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert (place / "worker").read_text() == "told "
    assert "goes on from the last checkpoint" in err


def test_the_key_of_wandb(place: Path) -> None:
    secret = place / "wandb.env"
    secret.write_text("WANDB_API_KEY='a $b'\n")
    text = local(place, python(place), online=True, secret=str(secret))
    assert "a $b" not in text
    secret.chmod(0o644)
    process = start(text, place)
    assert process.wait() == 2
    assert "chmod 600" in process.communicate()[1]
    secret.chmod(0o600)
    assert start(text, place).wait() == 0
    assert json.loads((place / "words.json").read_text())[1]["WANDB_API_KEY"] == "a $b"
    secret.unlink()
    assert start(text, place).wait() == 2


# What a batch script asks of Slurm, as far as it goes: a task a node, signals to all their processes.
SLURM = """
srun() {
  while [[ $1 == --* ]]; do shift; done
  local task; tasks=()
  for ((task = 0; task < NODES; task++)); do SLURM_NODEID=$task setsid "$@" & tasks+=($!); done
  printf '%s\\n' "${tasks[@]}" >tasks
  local worst=0 code
  for task in "${tasks[@]}"; do code=0; wait "$task" || code=$?; ((code > worst)) && worst=$code; done
  return "$worst"
}
scancel() { printf '%s ' "$*" >>told; local task; for task in $(<tasks); do kill -TERM -- "-$task"; done; }
scontrol() {
  case "$1" in
    show) printf 'first\\nsecond\\n' | head -n "$GIVEN" ;;
    *) printf '%s ' "$*" >>told ;;
  esac
}
"""


def batch(place: Path, program: str, given: int = 2, **environment: str) -> subprocess.Popen[str]:
    text = slurm_script(hostile(lambda **all_of: job("slurm", nodes=2, **all_of), place, program))
    slurm = {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "n[1-2]", "NODES": "2", "GIVEN": str(given)}
    return start(SLURM + text, place, **slurm, **environment)


def test_a_job_of_slurm(place: Path) -> None:
    process = batch(place, python(place))
    assert (process.wait(), process.communicate()[1]) == (0, "")
    words, environment = json.loads((place / "words.json").read_text())
    assert "--main_process_ip first --main_process_port 20041" in " ".join(words)
    assert environment["PET_RDZV_ID"] == "bank-forms-41.0"
    assert words[-1] == f"release.intended_use={HOSTILE}"
    assert not (place / "told").exists()
    assert not list(place.rglob("pwned"))


def test_torchrun_lets_what_it_started_save(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm signals every process of a step: torchrun would end its own 30 seconds later."""
    from torch.distributed import run

    def handled() -> str:
        return run.config_from_args(run.get_args_parser().parse_args(["train.py"]))[0].signals_to_handle

    assert "SIGTERM" in handled()
    assert batch(place, python(place)).wait() == 0
    _, environment = json.loads((place / "words.json").read_text())
    for name in environment.keys() & {"PET_SIGNALS_TO_HANDLE", "TORCHELASTIC_SIGNALS_TO_HANDLE"}:
        monkeypatch.setenv(name, environment[name])
    assert handled() == "SIGINT,SIGHUP,SIGQUIT"


def test_a_job_of_slurm_with_other_nodes(place: Path) -> None:
    process = batch(place, python(place), given=1)
    assert process.wait() == 2
    assert "1 nodes were given, the launcher config is for 2" in process.communicate()[1]


def test_wrong_input_is_not_put_back(place: Path) -> None:
    (place / "home/logs").mkdir()
    write_failure(place / "home/logs/launch-bank-forms-41.0.9.json", InputError("wrong"))
    assert batch(place, python(place, code=1, then="os.kill(os.getppid(), 9)")).wait() == 2
    assert not (place / "told").exists()


@pytest.mark.parametrize(("count", "back"), [("0", True), ("9", True), ("10", False)])
def test_when_the_time_is_over(place: Path, count: str, back: bool) -> None:
    process = batch(place, python(place, seconds=60), SLURM_RESTART_COUNT=count)
    wait_for(place / "started")
    process.send_signal(signal.SIGUSR1)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    told = (place / "told").read_text()
    assert told == "--signal=TERM 41 " + ("requeue 41 " if back else "")
    assert ("put back and goes on" in err) == back


def pod(place: Path, program: str) -> subprocess.Popen[str]:
    """The second of two pods, as Kubernetes starts it."""
    two = hostile(lambda **all_of: job("k8s", nodes=2, **all_of), place, program)
    environment = {"JOB_COMPLETION_INDEX": "1", "JOBSET_UID": "u-1", "JOBSET_RESTART": "3"}
    text = expanded(container(yaml.safe_load(jobset_manifest(two)))["args"][0], environment)
    return start(text, place, **environment)


def test_a_pod(place: Path) -> None:
    process = pod(place, python(place, then="print('learned', flush=True)"))
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "learned\n", "")
    words, environment = json.loads((place / "words.json").read_text())
    meeting = "--machine_rank 1 --main_process_ip bank-forms-node-0-0.bank-forms --main_process_port 29500"
    assert meeting in " ".join(words)
    assert words[-1] == f"release.intended_use={HOSTILE}"
    assert environment["PET_RDZV_ID"] == "bank-forms-u-1.3"
    # What it printed outlives it.
    assert (place / "home/logs/launch-bank-forms-node-1.log").read_text() == "learned\n"


def test_a_pod_that_is_taken_away(place: Path) -> None:
    """Never 0: Kubernetes would take the pod's part for done."""
    process = pod(place, python(place, seconds=60))
    wait_for(place / "started")
    process.terminate()
    out = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "goes on from the last checkpoint" in out
    assert "goes on from" in (place / "home/logs/launch-bank-forms-node-1.log").read_text()
