"""Encoded rows in memory that a training's process shares with its loader's workers."""

from __future__ import annotations

import mmap
from multiprocessing import Lock

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from finetune.encoded import Encoded

_REJECTED = "rejected."


class SharedRows:
    """Rows by their numbers below `rows`, kept by the worker that encodes them first for all of them: one
    epoch's worker is not the next one's.

    At most `room` bytes in all, of which memory is taken as rows come. To be made before the workers: forked,
    they inherit it. Rows that show features in place of pixels have no place here.
    """

    def __init__(self, rows: int, room: int) -> None:
        self.rows = rows
        self.room = room
        # Of no file: nothing is left behind however a process ends, and no limit of /dev/shm counts.
        self._memory = mmap.mmap(-1, max(room, 1))
        # int64: of each row where it begins and where it ends, 0 where it is not kept; then what is taken.
        self._places = np.frombuffer(mmap.mmap(-1, 8 * (2 * rows + 1)), np.int64)
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[SharedRows], tuple[int, int]]:
        # `datasets` hashes its transforms; a process that was not forked begins with memory of its own.
        return SharedRows, (self.rows, self.room)

    def get(self, number: int) -> Encoded | None:
        """The row, in memory of the caller's own; None where it is not kept."""
        with self._lock:
            start, end = self._places[2 * number : 2 * number + 2].tolist()
            data = self._memory[start:end]
        return _read(load(data)) if data else None

    def put(self, number: int, row: Encoded) -> None:
        """Keep the row where there is room for it."""
        data = save(_tensors(row))
        with self._lock:
            start, kept = int(self._places[-1]), int(self._places[2 * number + 1])
            end = start + len(data)
            if kept or end > self.room:
                return
            self._memory[start:end] = data
            self._places[2 * number : 2 * number + 2] = start, end
            self._places[-1] = end


def _tensors(row: Encoded) -> dict[str, Tensor]:
    """All that `row` holds, by names that `_read` knows; what it shares with its rejected answer once."""
    found = {
        **{f"tokens.{name}": values for name, values in row.tokens.items()},
        **{f"images.{name}": values for name, values in row.images.items()},
        "labels": row.labels,
        "row": torch.tensor(list(row.row.encode()), dtype=torch.uint8),
        "pictures": torch.tensor(row.pictures),
    }
    if row.positions is not None:
        found["positions"] = row.positions
    # Written are whole tensors that share no memory.
    found = {name: values.clone(memory_format=torch.contiguous_format) for name, values in found.items()}
    if row.rejected is not None:
        others = _tensors(row.rejected)
        found |= {f"{_REJECTED}{name}": values for name, values in others.items() if "images." not in name}
    return found


def _read(found: dict[str, Tensor], images: dict[str, Tensor] | None = None) -> Encoded:
    """The row of `_tensors`; a rejected answer's with the `images` of its row."""
    shown = _under("images.", found) if images is None else images
    rejected = _under(_REJECTED, found)
    return Encoded(
        bytes(found["row"].tolist()).decode(),
        _under("tokens.", found),
        found["labels"],
        shown,
        found.get("positions"),
        pictures=int(found["pictures"]),
        rejected=_read(rejected, shown) if rejected else None,
    )


def _under(prefix: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in found.items() if name.startswith(prefix)}
