"""Threads that prove matrices side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from finetune.malloc import keep_memory

# Each holds a dozen blocks of `blocks.row_blocks`, and what an adapter has of a layer's experts.
MOST = 8


@contextmanager
def threads(most: int = MOST) -> Iterator[ThreadPoolExecutor]:
    """One for each core, at `most` so many, each of which computes with a single one of torch's: in blocks
    so small several wait for each other longer than they compute, and take five times as much of the
    processors' time."""
    keep_memory()
    # torch counts them by the thread that asks, and gives a new one as many as the last that was told.
    before = torch.get_num_threads()
    cores = min(len(os.sched_getaffinity(0)), most)
    try:
        with ThreadPoolExecutor(cores, "proof", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
