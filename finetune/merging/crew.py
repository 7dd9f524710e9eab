"""Threads that work on blocks: while one reads, another computes and a third writes."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore

import torch

# Each holds a block: more of them would only take memory, the disk and the cores being busy.
_MOST = 8
# malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, and bytes: what every thread's blocks take, and a block.
_TRIM, _MAPPED = (-1, 256 << 20), (-3, 32 << 20)


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
    """A crew of a thread for each core and one more; once the block raises, no waiting job is done.

    Each computes with one thread of torch's, which has none of its own meanwhile.
    """
    _keep_memory()
    threads = min(len(os.sched_getaffinity(0)) + 1, _MOST)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, "merge", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield Crew(pool, threads)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _keep_memory() -> None:
    """Have malloc keep what a block has freed for the next: to be given new pages by the system costs about
    as much as to compute what is written to them. Only glibc can."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for setting in (_TRIM, _MAPPED):
            mallopt(*setting)
