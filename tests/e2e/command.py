"""Running the real command line in a process group of its own, killing it, and looking for survivors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
LENSMITH = [str(Path(sys.executable).with_name("lensmith"))]
# Every process a command starts inherits it, whatever its group or parent: how survivors are found.
MARK = "LENSMITH_TEST_MARK"


@dataclass
class Command:
    """A running command line; `lines` fills with its stderr."""

    process: subprocess.Popen[str]
    mark: str
    lines: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    _readers: list[threading.Thread] = field(default_factory=list)

    def wait(self, timeout: float = 600) -> int:
        """The exit code; the readers have ended too."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        return code

    def wait_for_line(self, *texts: str, timeout: float = 300) -> bool:
        """Whether a stderr line with one of `texts` came before the command ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if any(text in line for line in self.lines for text in texts):
                return True
            if ended:
                return False
            time.sleep(0.05)
        raise AssertionError(f"no line with one of {texts} in {timeout} s: {self.lines[-20:]}")

    def wait_for_output(self, timeout: float = 300) -> bool:
        """Whether a line came on stdout before the command ended."""
        deadline = time.monotonic() + timeout
        while not self.out and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return bool(self.out)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group, as a terminal or an operator does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def survivors(self, grace_s: float = 10.0) -> list[str]:
        """Command lines of processes of this command that still live after `grace_s`."""
        deadline = time.monotonic() + grace_s
        while (found := survivors_of(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    @property
    def err(self) -> str:
        """All of stderr so far."""
        return "".join(self.lines)


def start(arguments: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Command:
    """Start `lensmith ARGUMENTS` in a new process group."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [*LENSMITH, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), MARK: mark, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    command = Command(process, mark)
    for stream, lines in ((process.stderr, command.lines), (process.stdout, command.out)):
        assert stream is not None
        reader = threading.Thread(target=lines.extend, args=(iter(stream.readline, ""),), daemon=True)
        reader.start()
        command._readers.append(reader)
    return command


def run(
    arguments: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT, timeout: float = 600
) -> Command:
    """Run `lensmith ARGUMENTS` to its end."""
    command = start(arguments, env, cwd)
    command.wait(timeout)
    return command


def kill_at_renames(hook: Path, below: Path) -> dict[str, str]:
    """What a command's environment needs to be killed, with its group, before each rename below a folder that
    no command killed so wrote before. hook: an empty folder; its file `seen` then has those places."""
    shutil.copy(Path(__file__).with_name("rename_killer.py"), hook / "sitecustomize.py")
    return {
        "PYTHONPATH": f"{hook}{os.pathsep}{ROOT}",
        "LENSMITH_RENAMES": str(hook / "seen"),
        "LENSMITH_RENAMES_BELOW": str(below),
    }


def survivors_of(mark: str) -> list[str]:
    """Command lines of living processes that carry `mark`."""
    found: list[str] = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(" ".join(process.cmdline())[:200])
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found
