"""An adapter in the names that vLLM gives its modules, where those are not the class's own.

vLLM joins linear layers that read the same input (query, key and value; gate and up) and splits an adapter's
matrices over them only where its class of the family says how. For the others the parts become one adapter of
the joined layer: their A one below the other, their B along the diagonal, which is the same delta. Of the
rank that the parts have together. No torch: values are copied, not computed with.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize

from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError, Problem
from lensmith.families.layout import Layout

PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Matrix:
    """A matrix as it is stored: data row-major, in safetensors' name for its dtype."""

    dtype: str
    shape: tuple[int, int]
    data: bytes


@dataclass(frozen=True)
class Pair:
    """A linear layer's adapter: a [rank, in], b [out, rank], and what their product is multiplied by."""

    a: Matrix
    b: Matrix
    scaling: float

    @property
    def rank(self) -> int:
        """The rows of `a`."""
        return self.a.shape[0]


def engine_adapter(folder: Path, layout: Layout) -> dict[str, bytes]:
    """The two files of the adapter in `folder` with its modules named and joined as `layout` says, by name.

    Raises InputError where a joined layer is adapted in part, or its parts with different scaling or dtype.
    """
    config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_bytes())
    pairs = _join(_read_pairs((folder / ADAPTER_WEIGHTS).read_bytes(), config), layout)
    # Every module says its own: a joined one has the rank of all its parts.
    ranks = {name: pair.rank for name, pair in pairs.items()}
    config |= {
        "r": max(ranks.values()),
        "use_rslora": False,
        "target_modules": sorted(pairs),
        "rank_pattern": {re.escape(name): rank for name, rank in ranks.items()},
        "alpha_pattern": {re.escape(name): pair.scaling * pair.rank for name, pair in pairs.items()},
    }
    tensors = {
        f"{PREFIX}{name}{ending}": each
        for name, pair in sorted(pairs.items())
        for ending, each in ((A, pair.a), (B, pair.b))
    }
    return {
        ADAPTER_CONFIG: json.dumps(config, indent=2).encode() + b"\n",
        ADAPTER_WEIGHTS: _serialized(tensors),
    }


def engine_rank(folder: Path, layout: Layout) -> int:
    """The largest rank of any module once joined."""
    config = json.loads(engine_adapter(folder, layout)[ADAPTER_CONFIG])
    return int(config["r"])


def _read_pairs(content: bytes, config: Mapping[str, Any]) -> dict[str, Pair]:
    stored = {
        name: Matrix(each["dtype"], tuple(each["shape"]), bytes(each["data"]))
        for name, each in deserialize(content)
    }
    pairs: dict[str, Pair] = {}
    for name, a in stored.items():
        if name.endswith(A):
            module = name.removeprefix(PREFIX).removesuffix(A)
            pairs[module] = Pair(a, stored[f"{PREFIX}{module}{B}"], _scaling(module, a.shape[0], config))
    return pairs


def _scaling(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """What PEFT multiplies the module's delta by: it takes the first pattern that ends the name."""
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    found = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    alpha = next(found, config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _join(pairs: Mapping[str, Pair], layout: Layout) -> dict[str, Pair]:
    """The pairs by the layout's names, those of a joined layer as one."""
    left, joined = dict(pairs), dict[str, Pair]()
    problems: list[Problem] = []
    for each in layout.joined:
        for block in sorted({found["block"] for name in pairs if (found := each.find(name))}):
            names = [f"{block}.{part}" for part in each.parts]
            parts = {name: left.pop(name) for name in names if name in left}
            if len(parts) < len(names):
                missing = ", ".join(name for name in names if name not in parts)
                problems.append(Problem(f"is not adapted, what vLLM joins it with is: {missing}", block))
            elif len({(part.scaling, part.a.dtype, part.b.dtype) for part in parts.values()}) > 1:
                problems.append(Problem("has parts with different scaling or dtype", f"{block}.{each.disk}"))
            else:
                joined[f"{block}.{each.disk}"] = _joined(list(parts.values()))
    if problems:
        for_all = "merge it: serve.mode: merged"
        raise InputError(
            f"vLLM joins layers that {len(problems)} parts of the adapter do not fit",
            [Problem(each.what, each.where, for_all) for each in problems],
        )
    return {
        layout.disk_name(f"{name}.weight").removesuffix(".weight"): pair
        for name, pair in (left | joined).items()
    }


def _joined(parts: list[Pair]) -> Pair:
    first, ranks = parts[0], [part.rank for part in parts]
    rank, rows = sum(ranks), sum(part.b.shape[0] for part in parts)
    a = Matrix(first.a.dtype, (rank, first.a.shape[1]), b"".join(part.a.data for part in parts))
    value = len(first.b.data) // math.prod(first.b.shape)
    whole = np.zeros((rows, rank * value), np.uint8)
    row = column = 0
    for part in parts:
        height, width = part.b.shape[0], part.rank * value
        held = np.frombuffer(part.b.data, np.uint8).reshape(height, width)
        whole[row : row + height, column : column + width] = held
        row, column = row + height, column + width
    return Pair(a, Matrix(first.b.dtype, (rows, rank), whole.tobytes()), first.scaling)


def _serialized(tensors: Mapping[str, Matrix]) -> bytes:
    """A safetensors file: eight bytes of length, the header padded to a multiple of eight, the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, each in tensors.items():
        end = at + len(each.data)
        header[name] = {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(each.data for each in tensors.values())])
