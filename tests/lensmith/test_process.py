"""No child outlives us, however we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lensmith.process import LAUNCHED_BY, run_child, stop_tree

PYTHON = sys.executable
# Starts a grandchild in a session of its own, writes both ids, and waits; deaf to SIGTERM where told.
FAMILY = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1] + ".tmp", "w").write(f"{os.getpid()} {grandchild.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(600)
"""
OWNER = """
import sys
from lensmith.process import LAUNCHED_BY, run_child
run_child(sys.argv[1:]).wait()
"""


# Starts a program in a session of its own, as torchrun does, and ends before that can ask the kernel.
LAUNCHER = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", *sys.argv[1:4], str(os.getpid())], start_new_session=True)
"""
# Writes the exit code that it is told to end with, 0 where it may go on.
LAUNCHED = """
import os, sys, time
from lensmith.process import die_with_launcher
code = 0
while sys.argv[2] == "orphan" and os.getppid() == int(sys.argv[3]):
    time.sleep(0.01)
try:
    die_with_launcher()
except SystemExit as told:
    code = told.code
open(sys.argv[1] + ".tmp", "w").write(str(int(code)))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
"""


def wait_for(path: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not path.is_file():
        assert time.monotonic() < deadline, "the child did not start"
        time.sleep(0.02)
    return [int(part) for part in path.read_text().split()]


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} still run"
        time.sleep(0.02)


@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(3)", 3), ("pass", 0)])
def test_the_return_code_is_the_programs(code: str, expected: int) -> None:
    process = run_child([PYTHON, "-c", code])
    assert process.wait() == expected
    assert stop_tree(process) == expected


def test_a_signal_gives_128_and_its_number() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_child([PYTHON, "-c", code]).wait() == 128 + signal.SIGKILL


def test_a_missing_program_is_127(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_child(["/no/such/program"]).wait() == 127
    assert "/no/such/program cannot be started" in capfd.readouterr().err


@pytest.mark.parametrize("ears", ["open", "deaf"])
def test_stop_tree_stops_descendants(tmp_path: Path, ears: str) -> None:
    started = tmp_path / "pids"
    process = run_child([PYTHON, "-c", FAMILY, str(started), ears])
    pids = wait_for(started)
    stop_tree(process, grace_s=0.5 if ears == "deaf" else 30)
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_tree_dies_with_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    started = tmp_path / "pids"
    owner = subprocess.Popen(
        [PYTHON, "-c", OWNER, PYTHON, "-c", FAMILY, str(started), "open"],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    pids = wait_for(started)
    os.kill(owner.pid, number)
    owner.wait()
    assert_gone(pids)


def test_what_a_program_leaves_behind_is_stopped(tmp_path: Path) -> None:
    started = tmp_path / "pids"
    leaves = FAMILY.replace("time.sleep(600)\n", "\n") + "sys.exit(5)"
    process = run_child([PYTHON, "-c", leaves, str(started), "open"])
    assert process.wait() == 5
    assert not any(psutil.pid_exists(pid) for pid in wait_for(started))


def test_the_child_is_in_our_group_unless_told(tmp_path: Path) -> None:
    for own_group in (False, True):
        started = tmp_path / f"pids-{own_group}"
        process = run_child([PYTHON, "-c", FAMILY, str(started), "open"], own_group=own_group)
        program = wait_for(started)[0]
        assert (os.getpgid(program) == os.getpgrp()) is not own_group
        stop_tree(process)


def launched(tmp_path: Path, *argv: str) -> int:
    """The exit code that a program below these is told to end with, launched by us."""
    told = tmp_path / "told"
    environment = {**os.environ, LAUNCHED_BY: str(os.getpid())}
    subprocess.run([PYTHON, "-c", *argv, "0"], env=environment, cwd=Path(__file__).parents[2], check=False)
    return wait_for(told)[0]


def test_a_program_whose_launcher_is_above_it_goes_on(tmp_path: Path) -> None:
    assert launched(tmp_path, LAUNCHED, str(tmp_path / "told"), "child") == 0


def test_an_orphan_ends_though_its_launcher_lives(tmp_path: Path) -> None:
    assert launched(tmp_path, LAUNCHER, LAUNCHED, str(tmp_path / "told"), "orphan") == 143
