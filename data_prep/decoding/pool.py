"""A pool of worker processes for hostile images: ordered, bounded, and never stopped by an image."""

from __future__ import annotations

import functools
import os
import selectors
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, get_type_hints

from data_prep.decoding.desk import Desks
from data_prep.decoding.round import Round
from data_prep.decoding.work import Budget, PoolBroken, Request, function_named
from data_prep.decoding.worker_process import WorkerProcess
from data_prep.refusal import Flaw
from lensmith.images import ImageLimits


class DecoderPool:
    """Worker processes that do `work` (`module:function`, see `decoding.work.Work`) on images.

    `workers` is the most that run at once, by default the cores this process may use; each starts when the
    others have enough to do. A context manager: leaving it, however, ends the workers; so does the end of
    this process, by whatever signal. The thread that asks the pool must live as long as the pool.
    """

    def __init__(
        self,
        limits: ImageLimits,
        *,
        work: str,
        workers: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.limits = limits
        self.budget = budget or Budget()
        self.work = work
        self._selector = selectors.DefaultSelector()
        self._desks = Desks(self._start, self._selector, workers or len(os.sched_getaffinity(0)))
        self._round: Round | None = None

    def _start(self) -> WorkerProcess:
        return WorkerProcess(self.work, self.limits, self.budget)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, at once; waits until they are gone."""
        self._desks.close()
        self._selector.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers that run now."""
        return tuple(desk.worker.pid for desk in self._desks)

    def facts(self, requests: Iterable[Request], work: str = "") -> Iterator[Any | Flaw]:
        """For each request, in order: what the work gave, or the Flaw for which the image is refused.

        `work` is another function of the same module as the pool's own, whose workers go on with it.

        Takes from `requests` only some hundred images ahead. One iteration at a time. Raises PoolBroken.
        """
        if self._round is not None:
            raise PoolBroken("the pool serves another iteration")
        name = work or self.work
        self._round = Round(
            self._desks, self._selector, self.limits, self.budget, iter(requests), name, _result(name)
        )
        try:
            yield from self._round
        finally:
            self._round = None
            for desk in self._desks:
                desk.forget()


@functools.cache
def _result(work: str) -> Any:
    """The type of what the work gives, by its annotation; anything plain where nobody can know."""
    try:
        return get_type_hints(function_named(work)).get("return", Any)
    except (ImportError, AttributeError):
        # The worker tells why it cannot start.
        return Any
