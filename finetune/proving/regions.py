"""Where a checkpoint's tensors lie on disk, by the files' own headers, and reading them some rows at a time.

Format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes; offsets count from
the header's end (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lensmith.errors import IntegrityError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_LENGTH_BYTES = 8
# Bytes of a read where only bytes are compared, by as many threads as there are cores.
_READ = 1 << 20


@dataclass(frozen=True)
class Region:
    """A tensor in a file: dtype as the header names it, and its bytes `[start, end)`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def row_bytes(self) -> int:
        """What an entry of the first dimension takes."""
        return (self.end - self.start) // self.shape[0] if self.shape and self.shape[0] else 0

    @property
    def is_float(self) -> bool:
        """Whether `read` knows its dtype."""
        return self.dtype in _FLOATS

    def read(self, first: int, end: int) -> torch.Tensor:
        """Entries `[first, end)` of the first dimension, in the stored dtype."""
        data = bytearray((end - first) * self.row_bytes)
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.start + first * self.row_bytes)
            view = memoryview(data)
            while view:
                count = stream.readinto(view)
                if not count:
                    raise IntegrityError(f"{self.file} ended inside a tensor")
                view = view[count:]
        return torch.frombuffer(data, dtype=_FLOATS[self.dtype]).reshape(end - first, *self.shape[1:])

    def part(self, first: int, end: int) -> Region:
        """Entries `[first, end)` of the first dimension as a region of their own."""
        start = self.start + first * self.row_bytes
        shape = (end - first, *self.shape[1:])
        return Region(self.file, self.dtype, shape, start, start + (end - first) * self.row_bytes)

    def same_bytes(self, other: Region) -> bool:
        """Whether the other's bytes are the same; compared a few megabytes at a time."""
        if self.end - self.start != other.end - other.start:
            return False
        pairs = zip(self._bytes(), other._bytes(), strict=True)
        return all(one == another for one, another in pairs)

    def digest(self) -> str:
        """SHA-256 of dtype, shape and bytes; read a few megabytes at a time."""
        state = hashlib.sha256(f"{self.dtype} {list(self.shape)}\n".encode())
        for block in self._bytes():
            state.update(block)
        return state.hexdigest()

    def _bytes(self) -> Iterator[bytes]:
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.start)
            at = self.start
            while at < self.end:
                block = stream.read(min(_READ, self.end - at))
                if not block:
                    raise IntegrityError(f"{self.file} ended inside a tensor")
                at += len(block)
                yield block


def read_regions(root: Path) -> dict[str, Region]:
    """Every tensor of the checkpoint in `root` by its name. Raises IntegrityError where a file is missing or
    damaged, or the index does not fit."""
    indexed = (root / _INDEX).is_file()
    index = json.loads((root / _INDEX).read_bytes()) if indexed else {}
    found: dict[str, Region] = {}
    for name in sorted(set(index["weight_map"].values())) if indexed else [_SINGLE]:
        try:
            found |= read_file(root / name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{root / name} cannot be read: {error}") from error
    size = sum(region.end - region.start for region in found.values())
    place = {name: region.file.name for name, region in found.items()}
    if indexed and (index["weight_map"] != place or index["metadata"]["total_size"] != size):
        raise IntegrityError(f"the index of {root} does not fit its shards")
    return found


def read_file(path: Path) -> dict[str, Region]:
    """Every tensor of one file by its name. Raises OSError, ValueError, KeyError or TypeError for another."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > size:
            raise ValueError("it has no header")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    base = _LENGTH_BYTES + length
    regions = {
        name: Region(path, each["dtype"], tuple(each["shape"]), *(base + at for at in each["data_offsets"]))
        for name, each in header.items()
    }
    end = max((region.end for region in regions.values()), default=base)
    if end != size:
        raise ValueError(f"it has {size:,} bytes, its header says {end:,}")
    odd = [
        name
        for name, region in regions.items()
        if region.is_float
        and region.end - region.start != math.prod(region.shape) * _FLOATS[region.dtype].itemsize
    ]
    if odd:
        raise ValueError(f"{odd[0]} has not the size of its shape")
    return regions
