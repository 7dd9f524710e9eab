"""Threads that work on blocks: while one reads, another computes and a third writes."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore

from threadpoolctl import threadpool_limits

from finetune.malloc import keep_memory
from finetune.merging.late import torch
from lensmith.large_imports import no_collection
from lensmith.signals import signals_held

# Each holds a block: more of them would only take memory, the disk and the cores being busy.
_MOST = 8


class Crew:
    """Runs jobs in no order. A few wait at most: what a waiting one has read is in memory."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int, cores: int) -> None:
        # As many jobs compute at a time: more would only take each other's caches, and Python's lock.
        self.cores = BoundedSemaphore(cores)
        self._pool = pool
        self._room = BoundedSemaphore(2 * threads)
        self._failed: list[Future[None]] = []
        self._of_thread = threading.local()
        # Of torch's threads, before the crew's own took their place.
        self._before: int | None = None

    def compute(self, job: Callable[[], None]) -> Future[None]:
        """As `do`, a job that takes torch. For the main thread."""
        self.settle()
        return self.do(functools.partial(self._alone, job))

    def do(self, job: Callable[[], None]) -> Future[None]:
        """Hand over a job as soon as there is room. Raises what an earlier one raised."""
        self._room.acquire()
        if self._failed:
            self._room.release()
            self._failed[0].result()
        future = self._pool.submit(job)
        future.add_done_callback(self._done)
        return future

    def settle(self) -> None:
        """Import torch, which takes as long as some jobs, and leave all cores to the crew."""
        if self._before is None:
            # An exception that a signal raises in the midst of it would abort the process.
            with signals_held(), no_collection():
                self._before = torch.get_num_threads()
            torch.set_num_threads(1)

    def leave(self) -> None:
        """Give torch its threads again."""
        if self._before is not None:
            torch.set_num_threads(self._before)

    def _alone(self, job: Callable[[], None]) -> None:
        """Do a job with one thread of torch's, which counts them by the thread that asks."""
        if not hasattr(self._of_thread, "settled"):
            torch.set_num_threads(1)
            self._of_thread.settled = True
        job()

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and future.exception():
            self._failed.append(future)
        self._room.release()


@contextmanager
def crew_at_work() -> Iterator[Crew]:
    """A crew of a thread for each core and two more; once the block raises, no waiting job is done.

    Each computes with one thread of torch's or numpy's, which have none of their own meanwhile.
    """
    keep_memory()
    # Two that wait for the disk: while one's rows are written, it is asked for the next.
    cores = min(len(os.sched_getaffinity(0)), _MOST - 2)
    threads = cores + 2
    pool = ThreadPoolExecutor(threads, "merge")
    crew = Crew(pool, threads, cores)
    try:
        with threadpool_limits(1, "blas"):
            yield crew
    finally:
        pool.shutdown(cancel_futures=True)
        crew.leave()
