"""The threads that merge."""

from __future__ import annotations

import functools
import time

import pytest

from finetune.merging.crew import Crew, crew_at_work


def fail() -> None:
    raise ValueError("a broken block")


def hand_over(crew: Crew) -> None:
    for _ in range(500):
        crew.compute(functools.partial(time.sleep, 0.01))


def test_after_a_job_that_failed_no_more_are_taken() -> None:
    with crew_at_work() as crew:
        crew.compute(fail)
        with pytest.raises(ValueError, match="a broken block"):
            hand_over(crew)
