"""Starting a training: `accelerate launch` as a child that ends with us and whose errors become ours."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from finetune.checkpoint import sealed_steps
from finetune.disk import space_left
from finetune.killed import killed_process, was_killed, without_launcher
from finetune.launcher import Launcher, read_launcher
from finetune.live import forget_evaluations, read_evaluations, read_progress
from finetune.run import run_key
from lensmith.artifact import Artifact
from lensmith.errors import InputError, IntegrityError, LensmithError, Problem
from lensmith.failure import read_failure
from lensmith.home import Home
from lensmith.process import LAUNCHED_BY, run_child, signal_launched, stop_tree
from lensmith.recipe import Recipe
from lensmith.signals import Stopped

# Where a training process leaves the error that ended it, for the process that launched it.
ERROR_FILE = "LENSMITH_ERROR_FILE"
# The key of the run that a training process is launched for.
RUN_KEY = "LENSMITH_RUN_KEY"
SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "train.py"
_POLL_S = 0.3
_SHOWN_LINES = 6
_WRITTEN = "or start what lensmith launch writes, --to torchrun, slurm or k8s"


def train(
    recipe: Recipe,
    recipe_path: Path,
    settings: Sequence[str],
    home: Home,
    base: Artifact,
    dataset: Artifact,
) -> Artifact:
    """The run of the recipe: found, or trained now with the recipe's launcher.

    The child's output goes to `<home>/logs/train-<key>.log`. However this function ends, no child is left. A
    run that is whole counts, however the processes ended behind it.
    Raises the error that ended the training where it was one of ours, StoppedEarly among them, which follows
    on `lensmith.signals.Stopped`; InputError where the launcher config needs several machines, or its port is
    taken; LensmithError where a process of it was killed from outside, or is the first of several that failed
    by anything else; RuntimeError with the log's last lines where it is the only one.
    """
    launcher = read_launcher(recipe.train.launcher)
    key = run_key(recipe, base, dataset)
    if found := _find(home, key):
        return found
    if launcher.machines > 1:
        raise _several_machines(launcher, recipe_path, settings, home)
    # Two trainings of one key would write over each other's checkpoints: the second waits and finds the run.
    with home.locked(f"train-{key}"), space_left(home.root):
        if found := _find(home, key):
            return found
        command = accelerate_command(launcher, recipe_path, settings, home)
        _run(command, launcher, home, key, recipe.train.stop_grace)
    found = home.find("run", key)
    if found is None:
        raise RuntimeError(f"training ended without a run for key {key[:12]}; see {_log_path(home, key)}")
    return found


def _find(home: Home, key: str) -> Artifact | None:
    found = home.find("run", key)
    if found is not None:
        # A kill after the run was whole, and before its checkpoints were removed, has left them.
        shutil.rmtree(home.work_path(key), ignore_errors=True)
    return found


def accelerate_command(
    launcher: Launcher, recipe_path: Path, settings: Sequence[str], home: Home
) -> list[str]:
    """The command line that starts the training, with a free port for the processes to meet on.

    Raises InputError where the launcher config states a port that is taken.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(launcher.path)]
    if launcher.processes > 1 or launcher.zero_stage:
        command += ["--main_process_port", str(_port(launcher))]
    command += [str(SCRIPT), str(recipe_path.resolve()), "--home", str(home.root)]
    for setting in settings:
        command += ["-s", setting]
    return command


def _port(launcher: Launcher) -> int:
    with socket.socket() as listener:
        try:
            listener.bind(("", launcher.port or 0))
        except OSError as error:
            raise InputError(
                f"port {launcher.port} is in use",
                [Problem("main_process_port is taken", str(launcher.path), "remove it, a free one is found")],
            ) from error
        return listener.getsockname()[1]


def _several_machines(
    launcher: Launcher, recipe_path: Path, settings: Sequence[str], home: Home
) -> InputError:
    script = [str(SCRIPT), str(recipe_path), "--home", str(home.root)]
    for setting in settings:
        script += ["-s", setting]
    start = f"accelerate launch --config_file {launcher.path} --machine_rank N --main_process_ip FIRST"
    return InputError(
        f"{launcher.path.name} is for {launcher.machines} machines: start the training on each of them",
        [
            Problem(
                f"{start} {shlex.join(script)}",
                "on machine N",
                f"{_WRITTEN}; this command goes on from the run",
            )
        ],
    )


def first_failure(errors: Path) -> Path:
    """Where, beside the file for an error of ours, the first of several processes tells of any other."""
    return errors.with_name(f"{errors.name}.first")


def _log_path(home: Home, key: str) -> Path:
    return home.root / "logs" / f"train-{key[:12]}.log"


def _run(command: Sequence[str], launcher: Launcher, home: Home, key: str, grace: int) -> None:
    work, log_path = home.work_path(key), _log_path(home, key)
    errors = home.root / "logs" / f"train-{key[:12]}.error.json"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    for told in (errors, first_failure(errors)):
        told.unlink(missing_ok=True)
    environment = {**os.environ, ERROR_FILE: str(errors), RUN_KEY: key, LAUNCHED_BY: str(os.getpid())}
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0))
        environment["OMP_NUM_THREADS"] = str(max(1, cores // launcher.processes_a_machine))
    if launcher.cpu:
        # DeepSpeed and accelerate each look for a GPU of their own accord.
        environment.update(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="")
    forget_evaluations(work)
    with log_path.open("ab") as log:
        begins = log.tell()
        child = run_child(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = _watch(child, work)
        except Stopped:
            # Not accelerate, which would leave them 30 seconds, or none.
            if not signal_launched(child, signal.SIGTERM):
                raise
            code = _saved(child, grace)
            if not errors.is_file():
                raise
        finally:
            stop_tree(child)
    if errors.is_file():
        raise read_failure(errors)
    if code != 0 and home.find("run", key) is not None:
        # It is whole, or it would not be there: what a process did at its end takes nothing back.
        print(f"  the run is whole; a process ended with {code} behind it, see {log_path}", file=sys.stderr)
    elif code != 0:
        with log_path.open("rb") as written:
            written.seek(begins)
            said = written.read().decode(errors="replace")
        killed = killed_process(said)
        if killed is not None:
            last = max(sealed_steps(work), default=None)
            raise was_killed(killed, launcher.processes, last)
        if first_failure(errors).is_file():
            first = read_failure(first_failure(errors))
            raise LensmithError(first.summary, [*first.problems, Problem("has its traceback", str(log_path))])
        raise _unknown(code, without_launcher(said), log_path)


def _saved(child: subprocess.Popen[bytes], grace: int) -> int:
    """The return code of a training that was told to stop; ended by force after `grace` seconds."""
    print("  told to stop: the training saves after its step ...", file=sys.stderr)
    try:
        return child.wait(grace)
    except subprocess.TimeoutExpired:
        print(f"  not saved within {grace} s (train.stop_grace): ended", file=sys.stderr)
        return stop_tree(child)


def _watch(child: subprocess.Popen[bytes], work: Path) -> int:
    """Draw the bar (where stderr is a terminal) until the child ends; its return code."""
    told = 0
    with tqdm(desc="train", unit="step", disable=None) as bar:
        while True:
            for line in read_evaluations(work)[told:]:
                bar.write(f"  {line}", file=sys.stderr)
                told += 1
            progress = read_progress(work)
            if progress is not None:
                bar.total = progress[1]
                bar.update(progress[0] - bar.n)
            try:
                return child.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue


def _unknown(code: int, said: str, log_path: Path) -> RuntimeError:
    lines = [line for line in said.splitlines() if line.strip()]
    tail = "\n  ".join(line[-160:] for line in lines[-_SHOWN_LINES:])
    return RuntimeError(f"training ended with exit code {code}; {log_path} ends with\n  {tail}")


def check_key(found: str | None) -> None:
    """Raise IntegrityError where this process was launched for another run than it finds in the recipe.

    found: the run's key, None where its data is not prepared. Started by hand it is for whatever it finds.
    """
    asked = os.environ.get(RUN_KEY, found)
    if found != asked:
        what = f"key {found[:12]}" if found else "data that is not prepared"
        raise IntegrityError(
            "code, recipe or packages were changed while this command ran",
            [Problem(f"launched for key {str(asked)[:12]}, finds {what}", "training", "run it again")],
        )
