"""What killed servers leave is waited for, and named where it does not end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from lensmith.errors import InputError
from serving.api_server import PROGRAM
from serving.orphans import find_orphans, wait_for_orphans
from tests.conftest import ROOT
from tests.serving.exam import wait_gone

# In vLLM's place a program with its name in the command, which is deaf to SIGTERM.
ENGINE = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(1, flush=True)
time.sleep(600)
"""
SERVER = """
import sys
from lensmith.process import run_child
run_child([sys.executable, "-c", *sys.argv[1:]], stdout=sys.stdout).wait()
"""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """A server with its engine."""
    argv = [sys.executable, "-c", SERVER, ENGINE, str(PROGRAM)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    family = psutil.Process(process.pid).children(recursive=True)
    yield process
    process.kill()
    process.wait()
    for each in family:
        if each.is_running():
            each.kill()
    psutil.wait_procs(family, 30)


def supervisor_of(server: subprocess.Popen[str]) -> psutil.Process:
    (supervisor,) = psutil.Process(server.pid).children()
    return supervisor


def test_an_engine_whose_server_runs_is_no_orphan(server: subprocess.Popen[str]) -> None:
    assert supervisor_of(server) not in find_orphans()


def test_what_does_not_end_is_named_with_all_it_started(
    server: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = supervisor_of(server)
    (engine,) = supervisor.children()
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert supervisor in find_orphans()
    with pytest.raises(InputError, match="does not end") as caught:
        wait_for_orphans(limit_s=0.3)
    mine = next(each for each in caught.value.problems if str(supervisor.pid) in each.what)
    assert mine.mend == f"kill -9 {supervisor.pid} {engine.pid}"
    assert str(supervisor.pid) in capsys.readouterr().err


def test_the_end_of_one_is_awaited(server: subprocess.Popen[str]) -> None:
    supervisor = supervisor_of(server)
    (engine,) = supervisor.children()
    server.send_signal(signal.SIGKILL)
    server.wait()
    later = threading.Timer(0.5, engine.kill)
    later.start()
    wait_for_orphans()
    later.join()
    # Already, without waiting any more.
    assert wait_gone([supervisor, engine], 0) == []
