"""Which pictures of a split share a file: cut by what they show, so that a change leaves other files alone.

As chunks of a deduplicating backup are: whether a file ends with a picture hangs on that picture's pixels and
on how much the file holds already. Where one picture is another, its own file is another, and the cuts come
together again within the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

# Pixels that a file holds on average, at least; about a byte each as PNG of a photograph or scan, a tenth of
# it of a clean page.
LEAST_PIXELS = 8_000_000
# A split has at most as many files: each is an open file of every process that reads it, of 1,024 by default.
MOST_FILES = 200
_SMALLEST, _LARGEST = 0.25, 4.0


@dataclass(frozen=True)
class Shard:
    """The pictures of one file: how many, and what they are, 32 bytes of SHA-256 over the pixels' digests."""

    pictures: int
    key: bytes


def shard_key(identities: Iterable[bytes]) -> bytes:
    """The key of a shard with the pictures of these digests, in their order."""
    state = hashlib.sha256()
    for identity in identities:
        state.update(identity)
    return state.digest()


def plan_shards(pictures: Iterable[tuple[bytes, int]], pixels: int) -> list[Shard]:
    """Cut (digest of the pixels, number of the pixels) of a split's pictures; `pixels` of them all together.

    A file of a split twice as large as before may hold twice as much: then every cut moves, once.
    """
    mean = LEAST_PIXELS
    while pixels > mean * MOST_FILES:
        mean *= 2
    shards: list[Shard] = []
    state, count, held = hashlib.sha256(), 0, 0
    for identity, size in pictures:
        state.update(identity)
        count += 1
        held += size
        drawn = int.from_bytes(identity[:8], "big") / (1 << 64)
        if held >= mean * _LARGEST or (held >= mean * _SMALLEST and drawn < size / mean):
            shards.append(Shard(count, state.digest()))
            state, count, held = hashlib.sha256(), 0, 0
    if count:
        shards.append(Shard(count, state.digest()))
    return shards
