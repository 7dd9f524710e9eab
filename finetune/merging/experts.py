"""An adapter of routed experts as PEFT saves it, and what it adds to a fused parameter on disk."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.layout import Part
from finetune.merging.change import Compute
from finetune.merging.low_rank import LowRank, Matrix
from finetune.merging.tensor_file import TensorFile
from lensmith.families.experts import Experts

_WRAPPED = ".base_layer"
# Gives what computes the rows of one expert's matrix, where a `Part` of a fused parameter holds it.
StartExpert = Callable[[Part, int], Compute]
# Gives the change of those rows.
ExpertLowRank = Callable[[Part, int], LowRank]
# A layer's parameters, whose experts may lie in turn on disk.
_KEPT = 2
# Elements of a parameter's B, in float32, and of what is read of it at a time: 32 and 16 MiB.
_HELD, _READ = 8 << 20, 4 << 20


@dataclass(frozen=True)
class ExpertDelta:
    """The change of a fused parameter [experts, out, in]: in each expert `scale * B @ A`.

    a: the tensor with every expert's A, one below the other [experts * rank, in]. b: the one with every
    expert's B [out, rank * experts], in which the experts stand side by side for each rank in turn.
    """

    parameter: str
    a: str
    b: str
    scale: float
    rank: int


def layer_pattern(experts: Experts) -> re.Pattern[str]:
    """Matches the module of any layer's experts."""
    return re.compile(re.escape(experts.module).replace(r"\{\}", r"\d+"))


def wrapped_parameters(
    config: Mapping[str, Any], experts: Experts, modules: Iterable[str]
) -> tuple[dict[str, str], list[str]]:
    """By name of a wrapper in the adapter's file the parameter that it adapts, and parameters without one.

    PEFT 0.21 (tuners/tuners_utils.py, `_inject_parameters`) wraps the first parameter of a module that is
    targeted, in the class's order, then that wrapper for the next: the name says only how deep it lies.
    """
    targets = config.get("target_parameters") or []
    layer = layer_pattern(experts)
    found: dict[str, str] = {}
    wanted: set[str] = set()
    for module in modules:
        bare = module
        while bare.endswith(_WRAPPED):
            bare = bare.removesuffix(_WRAPPED)
        if not layer.fullmatch(bare):
            continue
        names = [f"{bare}.{name}" for name in experts.parameters]
        adapted = [name for name in names if any(f".{name}".endswith(f".{each}") for each in targets)]
        wanted |= set(adapted)
        depth = (len(module) - len(bare)) // len(_WRAPPED)
        if depth < len(adapted):
            found[module] = adapted[-1 - depth]
    return found, sorted(wanted - set(found.values()))


def shape_of(file: TensorFile, delta: ExpertDelta) -> tuple[int, ...] | None:
    """[experts, out, in] of the parameter that `delta` fits; None where A and B do not fit each other."""
    a, b = file.entries[delta.a].shape, file.entries[delta.b].shape
    if a[0] != b[1] or a[0] % delta.rank:
        return None
    return a[0] // delta.rank, b[0], a[1]


def expert_change(file: TensorFile, deltas: Mapping[str, ExpertDelta]) -> StartExpert:
    """Gives what makes rows of one expert's matrix, where a `Part` of a fused parameter holds it, by how much
    they change: scale * B @ A, in float32."""
    low_ranks = expert_low_rank(file, deltas)

    def start(part: Part, number: int) -> Compute:
        change = low_ranks(part, number)
        return lambda base, first: change.by_torch(first, len(base)).mul_(change.scale)

    return start


def expert_low_rank(file: TensorFile, deltas: Mapping[str, ExpertDelta]) -> ExpertLowRank:
    """Gives by how much rows of one expert's matrix change, where a `Part` of a fused parameter holds it.

    PEFT itself rounds the change to the weight's dtype before it adds it: in float32 the same.
    """

    @functools.lru_cache(maxsize=_KEPT)
    def together(name: str, group: int) -> Matrix:
        """B [experts, out, rank] in float32 of a group of experts: they lie side by side in the file."""
        return _some_experts(file, deltas[name], group * at_once(name), at_once(name))

    def at_once(name: str) -> int:
        entry = file.entries[deltas[name].b]
        return max(_HELD // (entry.shape[0] * deltas[name].rank), 1)

    def start(part: Part, number: int) -> LowRank:
        delta = deltas[part.name]
        a = file.float_rows(delta.a, number * delta.rank, delta.rank)
        group, place = divmod(number, at_once(part.name))
        b = together(part.name, group)[place]
        b = b[slice(*part.rows)] if part.rows else b

        def factors(first: int, rows: int) -> tuple[Matrix, Matrix]:
            of = slice(first, first + rows)
            return (a[:, of].T, b.T) if part.transposed else (b[of], a)

        return LowRank(factors, delta.scale, delta.rank, turned=part.transposed)

    return start


def _some_experts(file: TensorFile, delta: ExpertDelta, first: int, count: int) -> Matrix:
    """B [experts, out, rank] in float32 of `count` experts from the `first` on, as far as there are any."""
    out, width = file.entries[delta.b].shape
    count = min(count, width // delta.rank - first)
    found = np.empty((count, out, delta.rank), np.float32)
    at_once = max(_READ // width, 1)
    for row in range(0, out, at_once):
        rows = file.float_rows(delta.b, row, min(at_once, out - row))
        apart = rows.reshape(len(rows), delta.rank, -1)[:, :, first : first + count]
        found[:, row : row + len(rows)] = apart.transpose(2, 0, 1)
    return found
