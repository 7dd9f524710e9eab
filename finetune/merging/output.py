"""A file that jobs write together, past the system's cache: whole pages straight to the disk.

Nothing reads the file while it is written, and a page of the cache costs the processor several times what the
disk takes for it. What begins or ends inside a page waits until all jobs are done: a page is written by the
cache or past it, never both.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lensmith.errors import IntegrityError

# linux/fs.h: _IOW(0x94, 9, int), and _IOW(0x94, 13, struct file_clone_range).
_FICLONE, _FICLONERANGE = 0x40049409, 0x4020940D
# What those say that cannot share blocks, or not with each other (ioctl_ficlonerange(2)).
_CANNOT = (
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
)
# Of the disk's blocks and the memory's pages the larger: O_DIRECT asks for multiples of the former (open(2)).
_PAGE = max(4096, mmap.PAGESIZE)
# Bytes of a large page of x86-64.
_LARGE = 2 << 20
# Bytes of a write: enough to keep a disk busy, so few that they are still in a core's cache.
_WRITE = 4 << 20
# Of a copy: between its reads and writes a thread waits its turn in Python, which lets the one that imports
# torch go on for 5 ms each time.
_COPIED = 8 << 20

_of_thread = threading.local()


def share_blocks(source: Path, target: Path) -> bool:
    """Make `target` a file of its own that shares the blocks of `source` until one of them is written to;
    False, with an empty `target`, where the file system cannot."""
    with source.open("rb") as reader, target.open("wb") as writer:
        return _shared(writer.fileno(), _FICLONE, reader.fileno())


class Output:
    """A file of `size` bytes at `path`, made new. Every byte is to be written once, in any order and by any
    thread; then it is to be finished."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        with path.open("wb") as stream:
            stream.truncate(size)
        # By place what is not whole pages.
        self._ends: dict[int, bytes] = {}
        self._shares = True

    def write(self, data: memoryview, at: int) -> None:
        """Write all of `data` from the byte `at` on, as it lies in memory where `paged_memory` gave that."""
        straight = (_address(data) - at) % _PAGE == 0
        for first, end in self._pages(at, at + len(data)):
            part = data[first - at : end - at]
            if first % _PAGE or end % _PAGE:
                self._ends[first] = bytes(part)
            elif straight:
                self._write_pages(part, first)
            else:
                buffer = _buffer()[: end - first]
                buffer[:] = part
                self._write_pages(buffer, first)

    def copy(self, source: Path, start: int, end: int) -> None:
        """Copy the bytes `[start, end)` of `source` to the same place, its blocks where the file system can
        share them. Raises IntegrityError where it ends before them."""
        with source.open("rb", buffering=0) as reader:
            inner = (start + -start % _PAGE, end - end % _PAGE)
            shared = inner[0] < inner[1] and self._share(reader.fileno(), *inner)
            for first, last in self._pages(start, end, _COPIED):
                if shared and inner[0] <= first < inner[1]:
                    continue
                buffer = _buffer()[: last - first]
                read = 0
                while read < len(buffer):
                    count = os.preadv(reader.fileno(), [buffer[read:]], first + read)
                    if not count:
                        raise IntegrityError(f"{source} ended at {first + read:,} of {end:,} bytes")
                    read += count
                if first % _PAGE or last % _PAGE:
                    self._ends[first] = bytes(buffer)
                else:
                    self._write_pages(buffer, first)

    def finish(self) -> None:
        """Once every other call has returned: write what was kept back."""
        with _opened(self.path) as handle:
            end, run = 0, bytearray()
            for at, data in sorted(self._ends.items()):
                if at != end:
                    _write_at(handle, memoryview(bytes(run)), end - len(run))
                    run.clear()
                run += data
                end = at + len(data)
            _write_at(handle, memoryview(bytes(run)), end - len(run))

    def _pages(self, start: int, end: int, most: int = _WRITE) -> Iterator[tuple[int, int]]:
        """`[start, end)` cut into writes of `most` bytes: whole pages, and what is before and behind them."""
        first, last = start + -start % _PAGE, end - end % _PAGE
        if first >= last:
            # Within a page or two; nothing at all where a piece is empty.
            yield from [(start, end)] if start < end else []
            return
        yield from itertools.pairwise(sorted({start, *range(first, last, most), last, end}))

    def _share(self, reader: int, start: int, end: int) -> bool:
        if self._shares:
            with _opened(self.path) as writer:
                asked = struct.pack("qQQQ", reader, start, end - start, start)
                self._shares = _shared(writer, _FICLONERANGE, asked)
        return self._shares

    def _write_pages(self, data: memoryview, at: int) -> None:
        with _opened(self.path, os.O_DIRECT) as handle:
            try:
                _write_at(handle, data, at)
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        # A disk with larger blocks.
        with _opened(self.path) as handle:
            _write_at(handle, data, at)


def paged_memory(count: int, at: int) -> memoryview:
    """`count` bytes of the calling thread, its own until it calls again: they lie to the memory's pages as
    those of a file from the byte `at` on lie to its pages."""
    shift = at % _PAGE
    kept: memoryview | None = getattr(_of_thread, "paged", None)
    if kept is None or len(kept) < shift + count:
        # With room to be shifted by any number of bytes.
        kept = _large_pages(count + _PAGE)
        if count <= _WRITE:
            _of_thread.paged = kept
    return kept[shift : shift + count]


def _address(data: memoryview) -> int:
    return np.frombuffer(data, np.uint8).ctypes.data if data else 0


def _buffer() -> memoryview:
    """Memory of the calling thread at the beginning of a page."""
    if not hasattr(_of_thread, "buffer"):
        _of_thread.buffer = _large_pages(_COPIED)
    return _of_thread.buffer


def _large_pages(count: int) -> memoryview:
    """New memory of this process alone, at the beginning of a page, and in large pages where the system has
    some: what is written from those is one request to the disk, not one for each 250 small pages."""
    memory = mmap.mmap(-1, count + _LARGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    # A copy for a new process must not be made while the disk is given it (open(2), O_DIRECT).
    memory.madvise(mmap.MADV_DONTFORK)
    whole = memoryview(memory)
    first = -_address(whole) % _LARGE
    return whole[first : first + count]


def _shared(writer: int, request: int, asked: int | bytes) -> bool:
    try:
        fcntl.ioctl(writer, request, asked)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_WRONLY | flags)
    except OSError as error:
        # Some file systems have no way past the cache.
        if not flags or error.errno != errno.EINVAL:
            raise
        handle = os.open(path, os.O_WRONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_at(handle: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(handle, data, at)
        at, data = at + count, data[count:]
