"""Which elements of a change dare keeps: drawn by their numbers, so any rows are drawn by themselves."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.random import Philox

from finetune.merging.late import torch

# Philox 4x64 gives four numbers of 64 bits a count.
_A_COUNT = 8
_RANGE = 1 << 32


def kept(key: int, first: int, shape: tuple[int, int], density: float) -> torch.Tensor:
    """bool [rows, width]: of the elements from number `first` on those that are kept, each with probability
    `density`."""
    count, skipped = shape[0] * shape[1], first % _A_COUNT
    # Little-endian words: the lower half of each number is the earlier element.
    raw = Philox(key=key, counter=first // _A_COUNT).random_raw(-(-(skipped + count) // 2))
    drawn = raw.astype("<u8", copy=False).view("<u4")[skipped : skipped + count]
    limit = np.uint32(min(round(density * _RANGE), _RANGE - 1))
    return torch.from_numpy(drawn < limit).view(shape)


def drawing_key(seed: int, adapter: int, weight: str, expert: int | None) -> int:
    """Of one adapter's change of one matrix."""
    text = json.dumps([seed, adapter, weight, expert])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
