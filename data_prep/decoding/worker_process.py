"""One worker as the pool sees it: a process, two pipes that never block the pool, and a shared number."""

from __future__ import annotations

import collections
import mmap
import os
import subprocess
import sys
from typing import Any

import msgspec

from data_prep.decoding.frames import AT, NOT_YET, Heard, pack, take_whole
from data_prep.decoding.work import Budget
from lensmith.images import ImageLimits

_READ_BYTES = 1 << 16
# Of glibc, in bytes: memory of up to 32 MiB a piece, 128 MiB in all, stays with a worker for the next image.
# By default its pages come from the kernel anew, a fifth of the time that a PNG takes.
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}


class WorkerProcess:
    """A started worker (see `worker.py`); `kill` must be called in the end."""

    def __init__(self, work: str, limits: ImageLimits, budget: Budget) -> None:
        board = os.memfd_create("lensmith-worker")
        try:
            os.ftruncate(board, AT.size)
            self._board = mmap.mmap(board, AT.size)
            AT.pack_into(self._board, 0, NOT_YET)
            # A group of its own: at Ctrl-C the pool decides, and a worker prints no traceback.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "data_prep.decoding.worker", work, str(os.getpid()), str(board)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[board],
                process_group=0,
                env=_environment(),
            )
        finally:
            os.close(board)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.requests = self._process.stdin.fileno()
        self.answers = self._process.stdout.fileno()
        os.set_blocking(self.requests, False)
        os.set_blocking(self.answers, False)
        self._outgoing: collections.deque[memoryview] = collections.deque()
        self._incoming = bytearray()
        self.send((limits, budget))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def at(self) -> int:
        """The number of the image it is at or was at last; NOT_YET before the first."""
        return AT.unpack_from(self._board)[0]

    @property
    def has_more_to_send(self) -> bool:
        """Whether the pipe has not taken everything yet: call `flush` when it is writable."""
        return bool(self._outgoing)

    def send(self, message: Any) -> None:
        """Send `message`, now or when the pipe has room."""
        self._outgoing.append(memoryview(pack(message)))
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes without waiting."""
        while self._outgoing:
            head = self._outgoing.popleft()
            try:
                written = os.write(self.requests, head)
            except BlockingIOError:
                self._outgoing.appendleft(head)
                return
            except BrokenPipeError:
                # It has died: `receive` tells.
                self._outgoing.clear()
                return
            if written < len(head):
                self._outgoing.appendleft(head[written:])

    def receive(self) -> tuple[list[Heard], bool]:
        """The messages that have come, without waiting, and whether these were the last: one whose messages
        are none has been taken over, or its memory is broken."""
        ended = False
        while True:
            try:
                part = os.read(self.answers, _READ_BYTES)
            except BlockingIOError:
                break
            if not part:
                ended = True
                break
            self._incoming += part
        try:
            return take_whole(self._incoming), ended
        except msgspec.MsgspecError:
            return [], True

    def kill(self) -> int:
        """End the process, wait until it is gone, and return its code: minus the number of a signal.

        Where it had ended by itself, the code says how.
        """
        self._process.kill()
        # Waits; and closes our ends of the pipes.
        with self._process:
            pass
        self._board.close()
        return self._process.returncode


def _environment() -> dict[str, str]:
    # A worker finds modules where we do; and it is one of several, so its libraries start no threads.
    return {
        **os.environ,
        **_KEPT_MEMORY,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
