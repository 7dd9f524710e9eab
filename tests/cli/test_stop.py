"""Signals end a command by an exception, and wait where an exception would abort it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lensmith.cli.stop import stop_on_signals
from lensmith.signals import Stopped, signals_held


def test_ctrl_c_waits_until_the_block_is_over() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), signals_held():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_waits_too() -> None:
    reached = []
    with stop_on_signals(), pytest.raises(Stopped, match="SIGTERM"), signals_held():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        reached.append("the end")
    assert reached == ["the end"]


def test_nothing_is_raised_where_no_signal_came() -> None:
    with signals_held():
        pass


def test_an_error_of_the_block_goes_first() -> None:
    with pytest.raises(ValueError, match="broken"), signals_held():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise ValueError("broken")


LATE = """
import atexit, os, signal, sys, time
sys.argv = ["lensmith", "--version"]
import lensmith.cli.main as program
done = program.main
def main(argv):
    atexit.register(lambda: [os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)])
    return done(argv)
program.main = main
program.entry()
"""


def test_ctrl_c_that_comes_when_all_is_done() -> None:
    """While the interpreter shuts down it would end a finished command as if it had not finished."""
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout.startswith("lensmith ")
