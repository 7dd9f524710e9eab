"""How far a long step is, on stderr: nothing for a quick one, a line every few seconds for the others."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

# A step of a few seconds needs no line; one a few seconds shows that it lives.
FIRST_AFTER_S = 3.0
EVERY_S = 5.0
# Below so many a second a decimal tells whether it gets on.
_SLOW = 10


class Progress:
    """Counts what is done. `total` 0 is unknown; `start` was done before this process began."""

    def __init__(self, what: str, total: int = 0, start: int = 0) -> None:
        self.what = what
        self.total = total
        self.done = start
        self._start = start
        self._began = time.monotonic()
        self._next = self._began + FIRST_AFTER_S
        self._spoke = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spoke and kind is None:
            self._say()

    def add(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY_S
            self._spoke = True
            self._say()

    def _say(self) -> None:
        print(f"  {self.line(time.monotonic() - self._began)}", file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """What is said after `seconds` of work: how many, the rate, the time left where it is known."""
        rate = (self.done - self._start) / max(seconds, 1e-9)
        of = f" of {self.total:,}" if self.total else ""
        text = f"{self.what}: {self.done:,}{of}, {rate:,.{1 if rate < _SLOW else 0}f}/s"
        if self.total and rate:
            text += f", {_duration((self.total - self.done) / rate)} left"
        return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
