"""Threads that work on blocks: while one reads, another computes and a third writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore

import torch

# Each holds a block: more of them would only take memory, the disk and the cores being busy.
_MOST = 8


class Crew:
    """Runs jobs in no order. A few wait at most: what a waiting one has read is in memory."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool = pool
        self._room = BoundedSemaphore(2 * threads)
        self._failed: list[Future[None]] = []

    def do(self, job: Callable[[], None]) -> Future[None]:
        """Hand over a job as soon as there is room. Raises what an earlier one raised."""
        self._room.acquire()
        if self._failed:
            self._room.release()
            self._failed[0].result()
        future = self._pool.submit(job)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and future.exception():
            self._failed.append(future)
        self._room.release()


@contextmanager
def crew_at_work() -> Iterator[Crew]:
    """A crew of a thread for each core and two that wait for the disk; once the block raises, no waiting job
    is done.

    Each computes with one thread of torch's, which has none of its own meanwhile.
    """
    threads = min(len(os.sched_getaffinity(0)) + 2, _MOST)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, "merge", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield Crew(pool, threads)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
