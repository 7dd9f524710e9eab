"""Child programs that never outlive us: a supervisor between us and the program stops its whole tree.

`run_child` starts this file as a small supervisor, which starts the program. However the
caller ends (return, exception, Ctrl-C, SIGTERM, SIGKILL), the kernel tells the supervisor, and it stops the
program and all its descendants, those included whose own parents have gone. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

# prctl(2) options, from <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# How long an orphaned program may take to end by itself, in seconds.
ORPHAN_GRACE_S = 30.0
_SUPERVISOR = str(Path(*Path(__file__).parts[-2:]))
_POLL_S = 0.05

# The id of the process that launched a program through others that are not ours, in its environment.
LAUNCHED_BY = "LENSMITH_LAUNCHED_BY"

Stream = int | IO[bytes] | IO[str] | None


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process `number` when the thread that started it ends (prctl(2)).

    For a program that something other than `run_child` starts. Raises OSError where the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def die_with_launcher(*, at_once: bool = False) -> None:
    """Get SIGTERM when the process that started this one ends, and SIGKILL `ORPHAN_GRACE_S` later.

    For a program that something else starts below `run_child`: what started it may have been killed before
    the kernel was asked, so that it ends now where the process named by LAUNCHED_BY is above it no more.
    Started by hand, without LAUNCHED_BY, it has its parent only. at_once: get SIGKILL instead; for what has
    nothing to save. Raises SystemExit (143, as after SIGTERM), and OSError where the kernel refuses.
    """
    die_with_parent(signal.SIGKILL if at_once else signal.SIGTERM)
    if not at_once:
        threading.Thread(target=_end_as_orphan, args=(os.getppid(),), daemon=True).start()
    launcher = os.environ.get(LAUNCHED_BY)
    if launcher is not None and int(launcher) not in _ancestors():
        raise SystemExit(128 + signal.SIGTERM)


def _end_as_orphan(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    # It may wait for others that are gone, deaf to SIGTERM.
    time.sleep(ORPHAN_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def run_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Stream = None,
    stderr: Stream = None,
    own_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Start the program `argv` under a supervisor and return the supervisor's process.

    Its return code is the program's, 128 plus the number where a signal ended it. It stays in our process
    group, so that Ctrl-C reaches it too, unless `own_group`. `env` replaces the environment. Call
    `stop_tree` in a `finally`. The thread that calls this must live as long as the child should.
    """
    # Isolated: neither PYTHONPATH nor this file's folder may put another module before the standard ones.
    return subprocess.Popen(
        [sys.executable, "-I", __file__, str(os.getpid()), *argv],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        process_group=0 if own_group else None,
    )


def stop_tree(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> int:
    """Stop a process started by `run_child` and every descendant; returns its return code.

    SIGTERM first, SIGKILL for what is left after `grace_s` seconds; waits until all are gone. Does nothing
    where the process has ended already: the supervisor ends after its last descendant.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            family = _descendants(process.pid)
            for each in family:
                _signal(each, signal.SIGKILL)
            process.wait()
            psutil.wait_procs(family)
    return process.wait()


def stated_owner(command: Sequence[str]) -> int | None:
    """The process that a supervisor with this command line was started by; None for any other command."""
    # As `run_child` writes it; the supervisor may be another installation's.
    if len(command) > 4 and command[1] == "-I" and command[2].endswith(_SUPERVISOR) and command[3].isdigit():
        return int(command[3])
    return None


def signal_launched(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Send `number` to what the program of `run_child` has itself started; whether there was anything.

    For a program that only launches others, and would not wait for their end if it got the signal itself.
    """
    try:
        programs = psutil.Process(process.pid).children()
        launched = [each for program in programs for each in program.children()]
    except psutil.NoSuchProcess:
        return False
    for each in launched:
        _signal(each, number)
    return bool(launched)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused")


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _ancestors() -> set[int]:
    try:
        return {each.pid for each in psutil.Process().parents()}
    except psutil.NoSuchProcess:
        # One of them ended while they were listed: the chain is broken.
        return set()


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _supervise(parent: int, argv: Sequence[str]) -> int:
    """Run `argv` to its end, or until `parent` is gone or SIGTERM comes; leave no descendant behind."""
    awaited = {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
    # SIGINT stays pending here: at Ctrl-C the program, in the same group, gets its own.
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited | {signal.SIGINT})
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    program = os.fork()
    if program == 0:
        _become(argv)
    status: int | None = None
    while status is None:
        if signal.sigwait(awaited) != signal.SIGCHLD:
            os.kill(program, signal.SIGTERM)
            break
        status = _reap().get(program)
    deadline = time.monotonic() + ORPHAN_GRACE_S
    while status is None and time.monotonic() < deadline:
        signal.sigtimedwait({signal.SIGCHLD}, _POLL_S)
        status = _reap().get(program)
    for number in (signal.SIGTERM, signal.SIGKILL):
        told: set[psutil.Process] = set()
        while family := _descendants(os.getpid()):
            for each in set(family) - told:
                _signal(each, number)
            told.update(family)
            signal.sigtimedwait({signal.SIGCHLD}, _POLL_S)
            ended = _reap()
            status = ended.get(program, status)
            if number == signal.SIGTERM and time.monotonic() > deadline:
                break
    code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def _become(argv: Sequence[str]) -> None:
    try:
        die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvp(argv[0], list(argv))
    except OSError as error:
        print(f"{argv[0]} cannot be started: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _reap() -> dict[int, int]:
    """Collect every child that has ended: wait status by process id."""
    ended: dict[int, int] = {}
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    except ChildProcessError:
        return ended
    return ended


if __name__ == "__main__":
    sys.exit(_supervise(int(sys.argv[1]), sys.argv[2:]))
