"""What tells that a file was not changed since it was read, without reading it again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Self

# A file that changed less than this before it was looked at may change once more within the same tick of its
# disk's clock: 2 s on FAT, 10 ms on ext4. As git's index does, such a stamp is not relied on.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamp:
    """Size in bytes, times of change in ns of content and of anything known of the file, number on its disk.

    Content can be changed and its time set back; the other time no program can set: one that keeps its size
    and its time of change is still seen. settled: whether the stamp may be relied on.
    """

    size: int
    content_ns: int
    any_ns: int
    inode: int
    settled: bool

    @classmethod
    def of(cls, facts: os.stat_result) -> Self:
        """Of a file that is read later than this is asked."""
        last = max(facts.st_mtime_ns, facts.st_ctime_ns)
        settled = time.time_ns() - last > SETTLED_NS
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, settled)
