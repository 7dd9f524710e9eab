"""A worker process: takes batches of images from its stdin, does the work on each, answers on its stdout.

Started by `pool.py` as `python -m data_prep.decoding.worker MODULE:FUNCTION`. The kernel ends it when an
image takes too much time (by the default action of two timers: no native code can hold that up), and when
the pool's process is gone.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from data_prep.decoding.frames import AT, Answer, Batch, Terms, pack, receive
from data_prep.decoding.work import Budget, Drawing, Work, function_named, read_file
from lensmith.images import BadImage, ImageLimits
from lensmith.process import die_with_parent

# Answers are sent together, at least this often in seconds: each message wakes the pool.
_FLUSH_S = 0.02


def answer(work: Work, source: Path | bytes | Drawing, limits: ImageLimits) -> tuple[Answer, Any]:
    """Do the work on one image: (Answer.DONE, its result), or another of the five and why, in words."""
    try:
        return Answer.DONE, work(_encoded(source, limits), limits)
    except BadImage as error:
        return (
            Answer.NO_MEMORY if isinstance(error.__cause__, MemoryError) else Answer.REFUSED
        ), error.summary
    except MemoryError:
        return Answer.NO_MEMORY, ""
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return Answer.MISSING, "there is no such file"
    except OSError as error:
        return Answer.REFUSED, error.strerror or type(error).__name__
    except Exception as error:
        # Whatever the caller's function raises costs this image and is told with it, never the run.
        return Answer.FAILED, f"{type(error).__name__}: {str(error)[:200]}"


def _encoded(source: Path | bytes | Drawing, limits: ImageLimits) -> bytes:
    match source:
        case bytes():
            return source
        case Path():
            return read_file(source, limits.max_bytes)
        case Drawing():
            return function_named(source.by)(source, limits)


def limit_memory(increment: int) -> None:
    """Allow this process `increment` bytes of address space above what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + increment
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    # A core of two gigabytes for every crash would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(
    limits: ImageLimits,
    budget: Budget,
    note: Callable[[int], None],
    ways: tuple[BinaryIO, BinaryIO],
) -> None:
    """Answer batches of (number, source) until the pool closes its end."""
    requests, answers = ways
    while True:
        try:
            name, batch = receive(requests, Batch)
        except EOFError:
            return
        work: Work = function_named(name)
        ready: list[tuple[int, Answer, Any]] = []
        flushed = time.monotonic()
        for number, wired in batch:
            note(number)
            signal.setitimer(signal.ITIMER_PROF, budget.cpu_seconds)
            signal.setitimer(signal.ITIMER_REAL, budget.wall_seconds)
            ready.append((number, *answer(work, wired.source, limits)))
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if time.monotonic() - flushed > _FLUSH_S:
                _send(answers, ready)
                ready = []
                flushed = time.monotonic()
        if ready:
            _send(answers, ready)


def _send(answers: BinaryIO, message: Any) -> None:
    answers.write(pack(message))
    answers.flush()


def main(name: str, parent: int, board: int) -> None:
    """Serve the pool `parent`, noting progress in the shared memory behind the descriptor `board`."""
    die_with_parent()
    if os.getppid() != parent:
        return
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    shared = mmap.mmap(board, AT.size)
    # The pipes move away: what a C library prints must not reach them, nor anybody's terminal.
    with (
        os.fdopen(os.dup(0), "rb") as requests,
        os.fdopen(os.dup(1), "wb") as answers,
        Path(os.devnull).open("r+b", buffering=0) as nowhere,
    ):
        os.dup2(nowhere.fileno(), 0)
        os.dup2(nowhere.fileno(), 1)
        try:
            limits, budget = receive(requests, Terms)
            # What it imports is not to count as memory of the first image.
            function_named(name)
        except Exception:
            answers.write(pack(traceback.format_exc()))
            return
        os.dup2(nowhere.fileno(), 2)
        limit_memory(budget.memory_bytes)
        serve(limits, budget, lambda at: AT.pack_into(shared, 0, at), (requests, answers))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
