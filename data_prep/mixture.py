"""Several sources in one dataset: how many rows of each are taken, and how often training sees one.

cap: at most so many rows of a source are taken at all, before the split: those with the smallest hashes.
Rows handed over later push out only those whose places they take; everything else stays.

weight: how often a training row of the source is seen in an epoch, on average. 1 is once; 0.25 shows a
quarter of the rows, the same in every epoch; 2.5 shows each row twice and half of them a third time. Raising
a weight only adds. Rows for validation and for the exam are seen once, whatever the weight: repeating them
would change what a score means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy
from numpy.typing import NDArray

from data_prep.split import SplitName

_SPAN = 2**64


def row_hash(purpose: str, seed: int, source: str, row: str) -> int:
    """A number below 2**64 that depends on nothing but its arguments: the first 8 bytes of a BLAKE2b."""
    text = "\0".join((purpose, str(seed), source, row)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def capped(source: str, rows: Iterable[str], cap: int | None, seed: int) -> NDArray[numpy.bool_]:
    """Which of the rows (their ids, in order) are taken: `cap` of them, or all where they are no more.

    Eight bytes a row are held. An id that stands twice is one row for the hash: both are taken or, where
    the cap cuts between them, the first.
    """
    hashes = numpy.fromiter((row_hash("cap", seed, source, row) for row in rows), dtype=numpy.uint64)
    taken = numpy.ones(len(hashes), numpy.bool_)
    if cap is not None and len(hashes) > cap:
        taken[:] = False
        taken[numpy.argsort(hashes, kind="stable")[:cap]] = True
    return taken


def times_seen(source: str, row: str, split: SplitName, weight: float, seed: int) -> int:
    """How often an epoch shows the row: 1 for any split but train."""
    if split != "train":
        return 1
    whole = int(weight)
    return whole + (row_hash("weight", seed, source, row) < (weight - whole) * _SPAN)
