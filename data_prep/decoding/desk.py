"""A worker's place in the pool: what it has to answer; a dead worker is followed by another."""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_prep.decoding.frames import Heard, Wired
from data_prep.decoding.work import Request
from data_prep.decoding.worker_process import WorkerProcess


@dataclass
class Task:
    """A request with its place in the order; `alone`: judged again, by a worker that has seen no other."""

    number: int
    request: Request
    alone: bool = False

    @property
    def size(self) -> int:
        """The bytes that go through the pipe, 0 where the worker reads the file."""
        return len(self.request.source) if isinstance(self.request.source, bytes) else 0


class Desk:
    """One worker at a time, registered with the pool's selector."""

    def __init__(self, start: Callable[[], WorkerProcess], selector: selectors.BaseSelector) -> None:
        self._start = start
        self._selector = selector
        self.open: dict[int, Task] = {}
        self._sit_down()

    def _sit_down(self) -> None:
        self.worker = self._start()
        self.used = False
        self.open = {}
        self._last_numbers: deque[int] = deque()
        self._seen: tuple[int, int] | None = None
        self._seen_at = time.monotonic()
        self._selector.register(self.worker.answers, selectors.EVENT_READ, self)
        self._watch_sending()

    def _watch_sending(self) -> None:
        watched = self.worker.requests in self._selector.get_map()
        if self.worker.has_more_to_send and not watched:
            self._selector.register(self.worker.requests, selectors.EVENT_WRITE, self)
        elif watched and not self.worker.has_more_to_send:
            self._selector.unregister(self.worker.requests)

    @property
    def batches(self) -> int:
        """How many batches are not wholly answered."""
        return len(self._last_numbers)

    def give(self, work: str, batch: list[Task]) -> None:
        """Hand over a batch, and what is to be done with it."""
        self.used = True
        self.open.update((task.number, task) for task in batch)
        self._last_numbers.append(batch[-1].number)
        self.worker.send((work, [(task.number, Wired.of(task.request.source)) for task in batch]))
        self._watch_sending()

    def listen(self) -> tuple[list[Heard], bool]:
        """What the worker has said since, and whether it has ended or talks nonsense. Never waits."""
        self.worker.flush()
        self._watch_sending()
        return self.worker.receive()

    def settle(self, number: int) -> Task:
        """The task that has been answered is no longer open."""
        if self._last_numbers and self._last_numbers[0] == number:
            self._last_numbers.popleft()
        return self.open.pop(number)

    def stuck_for(self) -> float:
        """Seconds since the worker last began or answered an image; 0.0 where it has none to do."""
        state = (self.worker.at, len(self.open))
        if not self.open or state != self._seen:
            self._seen, self._seen_at = state, time.monotonic()
        return time.monotonic() - self._seen_at

    def replace(self) -> tuple[int, Task | None, list[Task]]:
        """End the worker and start another: its exit code, the task it was at, the other open ones."""
        at = self.worker.at
        tasks = self.open
        code = self._leave()
        self._sit_down()
        culprit = tasks.pop(at, None)
        return code, culprit, list(tasks.values())

    def forget(self) -> None:
        """Whatever is under way is not wanted any more."""
        if self.open:
            self.replace()

    def _leave(self) -> int:
        for pipe in (self.worker.answers, self.worker.requests):
            if pipe in self._selector.get_map():
                self._selector.unregister(pipe)
        return self.worker.kill()

    def close(self) -> None:
        """End the worker for good."""
        self._leave()
        self.open = {}


class Desks:
    """The desks of a pool: none at first, `most` at last."""

    def __init__(
        self, start: Callable[[], WorkerProcess], selector: selectors.BaseSelector, most: int
    ) -> None:
        self.most = most
        self._start = start
        self._selector = selector
        self._desks: list[Desk] = []

    def __iter__(self) -> Iterator[Desk]:
        return iter(self._desks)

    def add(self) -> Desk | None:
        """Start another worker; None where there are enough."""
        if len(self._desks) == self.most:
            return None
        self._desks.append(Desk(self._start, self._selector))
        return self._desks[-1]

    def close(self) -> None:
        """End the workers for good."""
        while self._desks:
            self._desks.pop().close()
