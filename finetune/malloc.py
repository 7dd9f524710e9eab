"""What the C library does with memory that was given back to it. No torch."""

from __future__ import annotations

import contextlib
import ctypes

# malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, and bytes: what every thread's blocks take, and a block.
_TRIM, _MAPPED = (-1, 256 << 20), (-3, 32 << 20)


def keep_memory() -> None:
    """Have malloc keep what a block has freed for the next: to be given new pages by the system costs about
    as much as to compute what is written to them. Only glibc can."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for setting in (_TRIM, _MAPPED):
            mallopt(*setting)
