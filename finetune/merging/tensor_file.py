"""One safetensors file, read by its header: entries where they lie, bytes untouched.

Format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes; offsets count from
the header's end (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.merging.floats import STORED, widened
from finetune.merging.late import torch
from lensmith.errors import IntegrityError, Problem

_LENGTH_BYTES = 8
# The format's own limit on the header, against hostile files.
_MAX_HEADER = 100_000_000
# What is held of a tensor that is looked through.
_LOOKED_AT_BYTES = 4 << 20


class Dtype(NamedTuple):
    """name: torch's ("bfloat16"). itemsize: bytes of a value."""

    name: str
    itemsize: int

    @property
    def of_torch(self) -> torch.dtype:
        """Torch's own."""
        return getattr(torch, self.name)


# By the format's name.
DTYPES = {
    "F64": Dtype("float64", 8),
    "F32": Dtype("float32", 4),
    "F16": Dtype("float16", 2),
    "BF16": Dtype("bfloat16", 2),
    "I64": Dtype("int64", 8),
    "I32": Dtype("int32", 4),
    "I16": Dtype("int16", 2),
    "I8": Dtype("int8", 1),
    "U8": Dtype("uint8", 1),
    "BOOL": Dtype("bool", 1),
    "F8_E4M3": Dtype("float8_e4m3fn", 1),
    "F8_E5M2": Dtype("float8_e5m2", 1),
}
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: dtype as the header names it, shape, and its bytes `[start, end)` in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and width of the tensor seen as a matrix: its last dimension, and all before it."""
        return math.prod(self.shape[:-1]), self.shape[-1] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """What a row of that matrix takes in the file."""
        return self.matrix[1] * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file: `head` is everything before the tensors' bytes, entries are in file order."""

    path: Path
    head: bytes
    entries: dict[str, Entry]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return max((entry.end for entry in self.entries.values()), default=len(self.head))

    def read(self, name: str) -> torch.Tensor:
        """A tensor in its stored dtype and shape, on the CPU."""
        entry = self.entries[name]
        return self.read_rows(name, 0, entry.matrix[0]).reshape(entry.shape)

    def read_rows(self, name: str, first: int, count: int) -> torch.Tensor:
        """Rows of a tensor seen as a matrix, [count, width], in its stored dtype.

        Raises IntegrityError where the file ends inside them.
        """
        entry = self.entries[name]
        width = entry.matrix[1]
        return self._read(entry, first * width, count * width).view(count, width)

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """A tensor's values from the first to the last, flat, in its stored dtype, a few megabytes at a time.

        Raises IntegrityError as `read_rows`.
        """
        entry = self.entries[name]
        for first, count in self._cut(entry):
            yield self._read(entry, first, count)

    def stored_rows(self, name: str, first: int, count: int) -> NDArray[Any]:
        """As `read_rows`, without torch: what numpy has of the stored values, see `STORED`."""
        entry = self.entries[name]
        width = entry.matrix[1]
        return self._stored(entry, first * width, count * width).reshape(count, width)

    def float_rows(self, name: str, first: int, count: int) -> NDArray[np.float32]:
        """As `read_rows`, without torch: in float32."""
        values = widened(self.stored_rows(name, first, count), self.entries[name].dtype)
        return values.astype(np.float32, copy=False)

    def float_blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """As `blocks`, without torch: those of bfloat16 in float32."""
        entry = self.entries[name]
        for first, count in self._cut(entry):
            yield widened(self._stored(entry, first, count), entry.dtype)

    def _cut(self, entry: Entry) -> Iterator[tuple[int, int]]:
        size, at_once = math.prod(entry.shape), _LOOKED_AT_BYTES // DTYPES[entry.dtype].itemsize
        for first in range(0, size, at_once):
            yield first, min(at_once, size - first)

    def _stored(self, entry: Entry, first: int, count: int) -> NDArray[Any]:
        values = np.empty(count, STORED[entry.dtype])
        self._fill(entry, first * values.itemsize, values.data.cast("B"))
        return values

    def _read(self, entry: Entry, first: int, count: int) -> torch.Tensor:
        """`count` of a tensor's values, flat."""
        tensor = torch.empty(count, dtype=DTYPES[entry.dtype].of_torch)
        self._fill(entry, first * tensor.itemsize, bytes_of(tensor))
        return tensor

    def _fill(self, entry: Entry, first: int, view: memoryview) -> None:
        """Read a tensor's bytes from its byte `first` on into all of `view`."""
        with self.path.open("rb", buffering=0) as stream:
            stream.seek(entry.start + first)
            while view:
                # A read may give less than it was asked for: Linux ends one at 2 GB.
                read = stream.readinto(view)
                if not read:
                    raise IntegrityError(f"{self.path} ended inside {entry.name}")
                view = view[read:]


def open_tensor_file(path: Path) -> TensorFile:
    """Read the header of a safetensors file and check it against the file's size.

    Raises IntegrityError where the file is truncated, the header is no header, or tensors overlap or leave
    gaps.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(_LENGTH_BYTES)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < _LENGTH_BYTES or length > min(_MAX_HEADER, size - _LENGTH_BYTES):
            raise IntegrityError(f"{path} is not a whole safetensors file")
        text = stream.read(length)
    base = _LENGTH_BYTES + length
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = [
            Entry(name, value["dtype"], tuple(value["shape"]), *(base + at for at in value["data_offsets"]))
            for name, value in header.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path} has a header that cannot be read: {error}") from error
    entries.sort(key=lambda entry: (entry.start, entry.end))
    _check(path, entries, base, size)
    return TensorFile(path, prefix + text, {entry.name: entry for entry in entries})


def header_of(entries: Mapping[str, Entry]) -> bytes:
    """What stands before the bytes of `entries`, which lie in a file in this order, under these names."""
    at = 0
    stated: dict[str, Any] = {}
    for name, entry in entries.items():
        end = at + entry.end - entry.start
        stated[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(stated, separators=(",", ":")).encode()
    # The tensors begin at a multiple of 8 bytes, as the format's own writer has it.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _check(path: Path, entries: list[Entry], base: int, size: int) -> None:
    problems: list[Problem] = []
    at = base
    for entry in entries:
        if entry.dtype not in DTYPES:
            problems.append(Problem(f"unknown dtype {entry.dtype}", entry.name))
        elif entry.end - entry.start != math.prod(entry.shape) * DTYPES[entry.dtype].itemsize:
            problems.append(Problem("its size does not fit its shape", entry.name))
        if entry.start != at:
            problems.append(Problem("does not begin where the tensor before it ends", entry.name))
        at = entry.end
    if at != size:
        problems.append(
            Problem(f"has {size:,} bytes, its header says {at:,}", mend="fetch or write it again")
        )
    if problems:
        raise IntegrityError(f"{path} is damaged", problems)


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor, where they lie."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def is_finite(values: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinite values."""
    if not values.is_floating_point():
        return True
    # Some dtypes can only be stored.
    known = values if values.dtype.itemsize > 1 else values.to(torch.float32)
    # Cheaper than to look at each: a sum that is finite has no other summands.
    return bool(known.sum().isfinite()) or bool(known.isfinite().all())
