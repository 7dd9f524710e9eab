"""The threads that merge."""

from __future__ import annotations

import functools
import resource
import subprocess
import sys
import time

import pytest
import torch

from finetune.merging.crew import Crew, crew_at_work

# Elements and number of the blocks that are computed, one after the other.
_BLOCK, _BLOCKS = 1 << 20, 400


def fail() -> None:
    raise ValueError("a broken block")


def hand_over(crew: Crew) -> None:
    for _ in range(500):
        crew.do(functools.partial(time.sleep, 0.01))


def test_after_a_job_that_failed_no_more_are_taken() -> None:
    with crew_at_work() as crew:
        crew.do(fail)
        with pytest.raises(ValueError, match="a broken block"):
            hand_over(crew)


def test_pages_are_asked_for_once() -> None:
    """In a process of its own: malloc keeps its setting, and what it has kept, for good."""
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    pages = int(run.stdout)
    # Of those of the float32 values alone.
    assert pages < _BLOCKS * 4 * _BLOCK // resource.getpagesize() // 8


def compute(number: int) -> None:
    """What a merge does with rows of a weight; no two weights have blocks of the same size."""
    rows = _BLOCK // 2048 + number * 97 % (_BLOCK // 1024)
    stored = torch.ones((rows, 1024), dtype=torch.bfloat16)
    values = torch.mm(torch.ones((rows, 1)), torch.ones((1, 1024)))
    values += stored.to(torch.float32)
    values.to(torch.bfloat16)


if __name__ == "__main__":
    with crew_at_work() as crew:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        jobs = [crew.do(functools.partial(compute, number)) for number in range(_BLOCKS)]
        for job in jobs:
            job.result()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
