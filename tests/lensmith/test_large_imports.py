"""What imports torch neither looks for garbage meanwhile nor takes it apart at its end."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from lensmith.large_imports import no_collection

PROGRAM = """
import atexit, sys, threading, time
from lensmith.large_imports import QuickExit
ending = QuickExit()
class Apart:
    def __del__(self):
        print("taken apart")
kept = Apart()
atexit.register(print, "registered")
threading.Thread(target=lambda: [time.sleep(0.2), print("thread")]).start()
print("out")
print("err", file=sys.stderr)
"""


def ended(last: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM + last]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_all_is_done_and_said_but_nothing_taken_apart() -> None:
    found = ended("ending.exit(3)")
    assert (found.returncode, found.stderr) == (3, "err\n")
    assert found.stdout.split() == ["out", "thread", "registered"]


def test_an_error_ends_as_ever() -> None:
    found = ended("raise ValueError('broken')")
    assert found.returncode == 1
    assert "ValueError: broken" in found.stderr
    assert "taken apart" in found.stdout


def test_the_collector_works_again_whatever_the_block_does() -> None:
    with pytest.raises(ImportError), no_collection():  # noqa: PT012
        assert not gc.isenabled()
        raise ImportError("missing")
    assert gc.isenabled()
    gc.unfreeze()
