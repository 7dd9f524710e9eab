"""How processes of a training leave: together, and without being taken apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Joined with the other by a file. The second comes a second later. Each writes when it came and when it left.
PROCESS = """
import atexit, os, sys, time
from finetune.ending import leave
from lensmith.large_imports import QuickExit
ending = QuickExit()
class Apart:
    def __del__(self):
        print("taken apart", flush=True)
kept = Apart()
if os.environ.get("STORE"):
    from torch import distributed
    place = dict(rank=int(os.environ["RANK"]), world_size=2)
    distributed.init_process_group("gloo", init_method="file://" + os.environ["STORE"], **place)
    time.sleep(place["rank"])
print(time.time(), flush=True)
atexit.register(lambda: print(time.time(), flush=True))
leave(ending, int(sys.argv[1]))
"""


def begin(code: int, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(code)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_none_leaves_before_all_have_come(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    both = [begin(0, WORLD_SIZE="2", RANK=str(rank), STORE=store) for rank in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    # Two times each: nothing was taken apart.
    (_, left), (came, _) = said
    assert float(left) >= float(came)


@pytest.mark.parametrize("code", [0, 2])
def test_alone_nothing_is_taken_apart_whatever_the_code(code: int) -> None:
    process = begin(code)
    assert len(process.communicate(timeout=60)[0].split()) == 2
    assert process.returncode == code


def test_one_of_several_that_failed_waits_for_nobody() -> None:
    process = begin(2, WORLD_SIZE="2", RANK="0")
    assert "taken apart" in process.communicate(timeout=60)[0]
    assert process.returncode == 2


@pytest.mark.slow
def test_processes_that_found_nothing_to_do_were_never_joined() -> None:
    process = begin(0, WORLD_SIZE="2", RANK="0")
    assert len(process.communicate(timeout=60)[0].split()) == 2
    assert process.returncode == 0
