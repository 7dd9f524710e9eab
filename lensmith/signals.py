"""Signals that have to wait."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(BaseException):
    """SIGTERM or SIGHUP came. Like KeyboardInterrupt, no handler of ordinary errors catches it."""


class Noted:
    """A signal that is only noted, for a program that ends where it can."""

    def __init__(self) -> None:
        self.told = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler, for `signal.signal`."""
        self.told = True


# SIGTERM, in programs that note it.
TERMINATION = Noted()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the block is over, then act on the first of them.

    For importing torch: an exception that a signal raises while one of its C++ modules initialises itself
    cannot be caught there, and aborts the process.
    """
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {
        number: signal.signal(number, lambda number, frame: caught.append(number)) for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])
