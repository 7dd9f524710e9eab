"""One safetensors file, read by its header: entries where they lie, bytes untouched.

Format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes; offsets count from
the header's end (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lensmith.errors import IntegrityError, Problem

_LENGTH_BYTES = 8
# The format's own limit on the header, against hostile files.
_MAX_HEADER = 100_000_000
_BLOCK = 16 << 20

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
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


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file: `head` is everything before the tensors' bytes, entries are in file order."""

    path: Path
    head: bytes
    entries: dict[str, Entry]

    def read_bytes(self, name: str) -> bytearray:
        """The stored bytes of a tensor."""
        entry = self.entries[name]
        data = bytearray(entry.end - entry.start)
        with self.path.open("rb") as stream:
            stream.seek(entry.start)
            if stream.readinto(data) != len(data):
                raise IntegrityError(f"{self.path} ended inside {name}")
        return data

    def read(self, name: str) -> torch.Tensor:
        """A tensor in its stored dtype and shape, on the CPU."""
        entry = self.entries[name]
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        return torch.frombuffer(self.read_bytes(name), dtype=DTYPES[entry.dtype]).reshape(entry.shape)


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


def rewrite(source: TensorFile, target: Path, changed: Callable[[str], torch.Tensor | None]) -> int:
    """Write `source` to `target` with the same header, each tensor for which `changed` gives one replaced.

    A replacement has the stored dtype and shape. Returns the bytes of all tensors. One tensor is in memory
    at a time.
    """
    with source.path.open("rb") as origin, target.open("wb") as stream:
        stream.write(source.head)
        for entry in source.entries.values():
            tensor = changed(entry.name)
            if tensor is None:
                for block in _blocks(origin.fileno(), entry):
                    stream.write(block)
            else:
                if tensor.dtype != DTYPES[entry.dtype] or tuple(tensor.shape) != entry.shape:
                    raise IntegrityError(f"{entry.name} changed its dtype or shape in merging")
                stream.write(tensor_bytes(tensor))
    return sum(entry.end - entry.start for entry in source.entries.values())


def _blocks(handle: int, entry: Entry) -> Iterator[bytes]:
    at = entry.start
    while at < entry.end:
        block = os.pread(handle, min(_BLOCK, entry.end - at), at)
        if not block:
            raise IntegrityError(f"the file of {entry.name} ended inside it")
        at += len(block)
        yield block


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor as safetensors stores them (row-major, little-endian)."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
