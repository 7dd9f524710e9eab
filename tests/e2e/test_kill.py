"""Killed anywhere, the same command finishes, under the same keys, and leaves nothing half and no child."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from lensmith.artifact import KINDS
from lensmith.home import Home
from tests.e2e.command import ROOT, Command, run, start

SEED = 20
RANDOM_KILLS = 20
# A stage's line on stderr, and how the next Ctrl-C finds it under way.
STAGES = ("prepare", "train", "merge", "merge proof", "trace", "reference", "report", "release")
QUICK = ("report", "release")

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]


def keys(home: Path) -> set[tuple[str, str]]:
    """Kind and key of every artifact."""
    return {(each.kind, each.manifest.key) for each in Home(home).all()}


def assert_nothing_half(home: Path) -> None:
    """Whatever counts as an artifact verifies, byte by byte."""
    opened = Home(home)
    for artifact in opened.all():
        opened.verify(artifact)


def assert_dead(command: Command) -> None:
    """No process of the command is left, in whatever group it was."""
    assert command.survivors() == []


def test_second_run_changes_nothing(arguments: list[str], unbroken: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    command = run([*arguments, "--home", str(unbroken)])
    assert command.process.returncode == 0, command.err
    assert "made in" not in command.err
    after = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    changed = {path.relative_to(unbroken).as_posix() for path in before if before[path] != after.get(path)}
    assert after.keys() == before.keys()
    assert {name for name in changed if not name.startswith("locks/")} == set()


def test_killed_at_every_rename(
    arguments: list[str], unbroken: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("renames") / "home"
    hook = tmp_path_factory.mktemp("hook")
    shutil.copy(Path(__file__).with_name("rename_killer.py"), hook / "sitecustomize.py")
    seen = hook / "seen"
    environment = {
        "PYTHONPATH": f"{hook}{os.pathsep}{ROOT}",
        "LENSMITH_RENAMES": str(seen),
        "LENSMITH_RENAMES_BELOW": str(home),
    }
    kills = 0
    while True:
        command = run([*arguments, "--home", str(home)], environment)
        assert_dead(command)
        assert_nothing_half(home)
        if command.process.returncode == 0:
            break
        assert command.process.returncode == -signal.SIGKILL, command.err
        kills += 1
        assert kills == len(seen.read_text().splitlines()), "killed once at each place"
    places = seen.read_text()
    for kind in KINDS:
        assert f"artifacts/{kind}/" in places, f"no kill while a {kind} was written:\n{places}"
    assert keys(home) == keys(unbroken)


def test_killed_at_random_moments(
    arguments: list[str], unbroken: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("random") / "home"
    moments = random.Random(SEED)
    for _ in range(RANDOM_KILLS):
        command = start([*arguments, "--home", str(home)])
        time.sleep(moments.uniform(0.2, 30))
        command.signal_group(signal.SIGKILL)
        command.wait()
        assert_dead(command)
        assert_nothing_half(home)
    command = run([*arguments, "--home", str(home)])
    assert command.process.returncode == 0, command.err
    assert_dead(command)
    assert keys(home) == keys(unbroken)


def test_ctrl_c_in_every_stage(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("ctrl-c") / "home"
    for stage in STAGES:
        command = start([*arguments, "--home", str(home)])
        assert command.wait_for_line(f"  {stage} ..."), command.err
        time.sleep(0 if stage in QUICK else 0.3)
        command.signal_group(signal.SIGINT)
        code = command.wait(60)
        assert_dead(command)
        assert_nothing_half(home)
        if stage in QUICK and code == 0:
            # It takes a tenth of a second, and so does the rest: the signal may come when all is done.
            continue
        assert code == 130, f"{stage}: {code}\n{command.err}"
        assert "Traceback" not in command.err, command.err
        assert "stopped; the same command goes on" in command.err
    command = run([*arguments, "--home", str(home)])
    assert command.process.returncode == 0, command.err
