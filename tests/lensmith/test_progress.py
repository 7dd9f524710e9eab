"""What a long step says: the count, the rate, the time left, and nothing while it is quick."""

from __future__ import annotations

import pytest

from lensmith import progress
from lensmith.progress import Progress


@pytest.mark.parametrize(
    ("total", "start", "done", "seconds", "said"),
    [
        (0, 0, 1200, 2.0, "pictures: 1,200, 600/s"),
        (4000, 0, 1000, 10.0, "pictures: 1,000 of 4,000, 100/s, 0:30 left"),
        # What an earlier process did counts as done, not as speed.
        (4000, 3000, 500, 10.0, "pictures: 3,500 of 4,000, 50/s, 0:10 left"),
        (100, 0, 14, 10.0, "pictures: 14 of 100, 1.4/s, 1:01 left"),
        (100_000, 0, 10, 1.0, "pictures: 10 of 100,000, 10/s, 2:46:39 left"),
    ],
)
def test_the_line(total: int, start: int, done: int, seconds: float, said: str) -> None:
    counting = Progress("pictures", total, start)
    counting.add(done)
    assert counting.line(seconds) == said


def test_a_quick_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("pictures", 10) as counting:
        counting.add(10)
    assert capsys.readouterr().err == ""


def test_a_long_one_says_how_far_it_is_and_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_AFTER_S", 0.0)
    with Progress("pictures", 3) as counting:
        counting.add()
        counting.add()
        counting.add()
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("  pictures: 1 of 3")
    assert last.startswith("  pictures: 3 of 3")
