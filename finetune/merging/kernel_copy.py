"""Bytes from file to file without passing through this process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from lensmith.errors import IntegrityError

# linux/fs.h: _IOW(0x94, 9, int).
_FICLONE = 0x40049409
# What those say that cannot share blocks, or not with each other (ioctl_ficlone(2), copy_file_range(2)).
_CANNOT = (
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
)
_PLAIN = 4 << 20


def share_blocks(source: Path, target: Path) -> bool:
    """Make `target` a file of its own that shares the blocks of `source` until one of them is written to;
    False, with an empty `target`, where the file system cannot."""
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return False
    return True


def copy_range(source: Path, target: Path, start: int, end: int) -> None:
    """Copy the bytes `[start, end)` to the same place in `target`, which is there.

    By the kernel, which shares blocks where the file system can; block by block where it refuses. Raises
    IntegrityError where `source` ends before them.
    """
    with source.open("rb") as reader, target.open("r+b") as writer:
        at, by_kernel = start, True
        while at < end:
            if by_kernel:
                try:
                    count = os.copy_file_range(reader.fileno(), writer.fileno(), end - at, at, at)
                except OSError as error:
                    if error.errno not in _CANNOT:
                        raise
                    by_kernel = False
                    continue
            else:
                block = os.pread(reader.fileno(), min(_PLAIN, end - at), at)
                count = len(block)
                write_at(writer.fileno(), memoryview(block), at)
            if not count:
                raise IntegrityError(f"{source} ended at {at:,} of {end:,} bytes")
            at += count


def write_at(handle: int, data: memoryview, at: int) -> None:
    """Write all of `data` from the byte `at` on."""
    while data:
        count = os.pwrite(handle, data, at)
        at, data = at + count, data[count:]
