"""One iteration over images: taking requests ahead, handing out batches, putting answers into order."""

from __future__ import annotations

import selectors
import signal
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from data_prep.decoding.desk import Desk, Desks, Task
from data_prep.decoding.frames import Answer, Heard
from data_prep.decoding.verdict import Ending, flaw_for
from data_prep.decoding.work import Budget, PoolBroken, Request
from data_prep.refusal import Flaw
from lensmith.images import ImageLimits

# A batch is as many images as this, or bytes handed over as these: at a millisecond an image one round
# trip of a few tenths of it serves 16.
BATCH_IMAGES = 16
BATCH_BYTES = 8_000_000
# Two: while a worker does one, the next lies in its pipe.
_BATCHES_A_WORKER = 2
# Images taken and not yet handed back, a worker: a slow one does not stop the others at once.
WINDOW_IMAGES = 8 * BATCH_IMAGES
WINDOW_BYTES = 8 * BATCH_BYTES
# How often the clock is looked at while no worker answers, in seconds.
_LOOK_S = 1.0
# How much longer than the wall limit the worker's own timer gets before the pool ends the worker.
_TIMER_GRACE_S = 10.0
# Workers that end one after the other while at no image: not an image's fault.
_MAX_FALSE_STARTS = 3

_ENDINGS = {
    Answer.REFUSED: Ending.UNREADABLE,
    Answer.FAILED: Ending.UNREADABLE,
    Answer.MISSING: Ending.MISSING,
    Answer.NO_MEMORY: Ending.MEMORY,
}


class Round:
    """Iterates once; see `DecoderPool.facts`."""

    def __init__(
        self,
        desks: Desks,
        selector: selectors.BaseSelector,
        limits: ImageLimits,
        budget: Budget,
        source: Iterator[Request],
        work: str,
        result: Any,
    ) -> None:
        """`result` is the type of what `work` gives."""
        self._desks = desks
        self._selector = selector
        self._limits = limits
        self._budget = budget
        self._work = work
        self._result = result
        self._source: Iterator[Request] | None = source
        self._taken = 0
        self._given_back = 0
        self._held_bytes = 0
        self._sizes: dict[int, int] = {}
        self._waiting: deque[Task] = deque()
        # To be judged a second time: what an image costs must not depend on those before it.
        self._again: deque[Task] = deque()
        self._answers: dict[int, Any | Flaw] = {}
        self._false_starts = 0

    def __iter__(self) -> Iterator[Any | Flaw]:
        while True:
            self._take()
            self._hand_out()
            if self._given_back == self._taken and self._source is None:
                return
            self._listen(0.0 if self._given_back in self._answers else _LOOK_S)
            # A few at a time: the workers must not run dry while the caller works.
            for _ in range(BATCH_IMAGES):
                if self._given_back not in self._answers:
                    break
                answer = self._answers.pop(self._given_back)
                self._held_bytes -= self._sizes.pop(self._given_back)
                self._given_back += 1
                yield answer

    def _take(self) -> None:
        workers = self._desks.most
        while (
            self._source is not None
            and self._taken - self._given_back < WINDOW_IMAGES * workers
            and self._held_bytes < WINDOW_BYTES * workers
        ):
            request = next(self._source, None)
            if request is None:
                self._source = None
                return
            task = Task(self._taken, request)
            self._taken += 1
            self._sizes[task.number] = task.size
            self._held_bytes += task.size
            if task.size > self._limits.max_bytes:
                said = f"the file has {task.size:,} bytes, {self._limits.max_bytes:,} are allowed"
                self._refuse(task, Ending.UNREADABLE, said)
            else:
                self._waiting.append(task)

    def _hand_out(self) -> None:
        for desk in self._desks:
            if self._again:
                # This desk runs dry first, so that one of them is free soon.
                if not desk.open:
                    if desk.used:
                        desk.replace()
                    desk.give(self._work, [self._again.popleft()])
                continue
            self._fill(desk)
        # A worker costs a fifth of a second to start: not before the others have enough to do.
        while self._waiting and not self._again and (desk := self._desks.add()):
            self._fill(desk)

    def _fill(self, desk: Desk) -> None:
        while self._waiting and desk.batches < _BATCHES_A_WORKER:
            desk.give(self._work, self._next_batch())

    def _next_batch(self) -> list[Task]:
        batch = [self._waiting.popleft()]
        size = batch[0].size
        while self._waiting and len(batch) < BATCH_IMAGES and size + self._waiting[0].size <= BATCH_BYTES:
            size += self._waiting[0].size
            batch.append(self._waiting.popleft())
        return batch

    def _listen(self, timeout_s: float) -> None:
        ready = {id(key.data): key.data for key, _ in self._selector.select(timeout_s)}
        for desk in ready.values():
            messages, ended = desk.listen()
            for message in messages:
                self._hear(desk, message)
            if ended:
                self._bury(desk)
        if not ready and timeout_s:
            for desk in self._desks:
                if desk.stuck_for() > self._budget.wall_seconds + _TIMER_GRACE_S:
                    self._bury(desk, stuck=True)

    def _hear(self, desk: Desk, message: Heard) -> None:
        if isinstance(message, str):
            raise PoolBroken(f"a worker cannot start: {message}")
        self._false_starts = 0
        for number, kind, content in message:
            if number not in desk.open:
                # Nobody asked: whatever speaks there is no worker of ours any more.
                self._bury(desk)
                return
            task = desk.settle(number)
            if kind is Answer.DONE:
                self._take_result(task, content)
            elif kind is Answer.NO_MEMORY and not task.alone:
                self._judge_again(task)
            else:
                self._refuse(task, _ENDINGS[kind], content)

    def _take_result(self, task: Task, content: Any) -> None:
        try:
            self._answers[task.number] = msgspec.convert(content, self._result)
        except msgspec.ValidationError:
            self._refuse(task, Ending.CRASH, "")

    def _bury(self, desk: Desk, *, stuck: bool = False) -> None:
        """The worker has died, or is to: one task may be to blame, the others are done by the next."""
        code, culprit, others = desk.replace()
        self._waiting.extendleft(reversed(others))
        if culprit is None:
            self._false_starts += 1
            if self._false_starts > _MAX_FALSE_STARTS:
                raise PoolBroken(f"the workers end before they begin (exit code {code})")
        elif stuck or code in (-signal.SIGPROF, -signal.SIGALRM):
            self._refuse(culprit, Ending.TIME, "")
        elif culprit.alone:
            self._refuse(culprit, Ending.CRASH, "")
        else:
            self._judge_again(culprit)

    def _judge_again(self, task: Task) -> None:
        task.alone = True
        self._again.append(task)

    def _refuse(self, task: Task, ending: Ending, said: str) -> None:
        self._answers[task.number] = flaw_for(task.request.name, ending, said, self._budget)
