"""A checkpoint's weights: one safetensors file or shards with an index, and which tensor lies where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from finetune.merging.tensor_file import Entry, TensorFile, open_tensor_file
from lensmith.errors import InputError, IntegrityError, Problem

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """`files` by name in the directory; `place` says which file holds a tensor; `indexed`: has shards."""

    root: Path
    files: dict[str, TensorFile]
    place: dict[str, TensorFile]
    indexed: bool

    def entry(self, name: str) -> Entry:
        """Dtype and shape of a tensor."""
        return self.place[name].entries[name]


def open_checkpoint(root: Path) -> Checkpoint:
    """Read every header of the checkpoint in `root`.

    Raises InputError where it has no safetensors weights, IntegrityError where a shard is missing or
    truncated, or index and shards do not name the same tensors.
    """
    if (root / INDEX).is_file():
        return _open_shards(root)
    if not (root / SINGLE).is_file():
        raise InputError(f"{root} has no safetensors weights", [Problem("is missing", SINGLE)])
    file = open_tensor_file(root / SINGLE)
    return Checkpoint(root, {SINGLE: file}, dict.fromkeys(file.entries, file), indexed=False)


def _open_shards(root: Path) -> Checkpoint:
    stated: dict[str, str] = json.loads((root / INDEX).read_bytes())["weight_map"]
    names = sorted(set(stated.values()))
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if name not in outside and not (root / name).is_file()]
    problems = [Problem("the index names a file outside the checkpoint", name) for name in outside]
    problems += [Problem("the index names it, but it is missing", str(root / name)) for name in missing]
    if problems:
        raise IntegrityError(f"the checkpoint in {root} is not whole", problems)
    files = {name: open_tensor_file(root / name) for name in names}
    place: dict[str, TensorFile] = {}
    for name, file in files.items():
        for tensor in file.entries:
            if stated.get(tensor) != name:
                problems.append(Problem(f"is in {name}, the index says {stated.get(tensor)}", tensor))
            place[tensor] = file
    problems += [
        Problem("is in the index but in no shard", tensor) for tensor in stated.keys() - place.keys()
    ]
    if problems:
        raise IntegrityError(f"the index of {root} does not fit its shards", problems)
    return Checkpoint(root, files, place, indexed=True)
