"""A LoRA adapter as PEFT saves it: which weight each pair of tensors changes, and by what scale."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.merging.adapter_config import rank_and_scale, read_config
from finetune.merging.change import Compute, add_scaled
from finetune.merging.experts import ExpertDelta, shape_of, wrapped_parameters
from finetune.merging.late import torch
from finetune.merging.low_rank import LowRank
from finetune.merging.new_rows import Rows, read_rows
from finetune.merging.tensor_file import FLOATS, TensorFile, open_tensor_file
from finetune.merging.whole import Whole, read_whole
from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.errors import InputError, Problem
from lensmith.families.experts import Experts

# PEFT saves a magnitude without `.weight`, and reads it with it too.
_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_((?P<side>[AB])\.weight|(?P<magnitude>magnitude_vector)(\.weight)?)"
)
_MAGNITUDE = "magnitude_vector"
# A B of more, an output head's of a high rank, is read some rows at a time.
_HELD_BYTES = 16 << 20


@dataclass(frozen=True)
class Delta:
    """The change of one weight by `scale * B @ A`, with the tensors' names in the adapter's file.

    magnitude: for DoRA, of the vector that each row's length becomes; None for LoRA.
    """

    module: str
    a: str
    b: str
    scale: float
    magnitude: str | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk: one delta a module, or fused parameter of the `experts`, by name, and the `rows` of
    new tokens, and what is held `whole`, by weight; every tensor of `file` is in exactly one of them."""

    file: TensorFile
    deltas: dict[str, Delta]
    experts: dict[str, ExpertDelta]
    rows: dict[str, Rows]
    whole: dict[str, Whole]

    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """By name of each weight that has a delta: the shape that fits, and a tensor of the delta."""
        entries = self.file.entries
        linears = {
            f"{module}.weight": ((entries[delta.b].shape[0], entries[delta.a].shape[1]), delta.a)
            for module, delta in self.deltas.items()
        }
        return linears | {
            name: (shape_of(self.file, delta) or (), delta.a) for name, delta in self.experts.items()
        }

    def merger(self, delta: Delta) -> Compute:
        """What makes rows of the base's weight W [out, in], stored or already in float32, those that they
        become, in float32.

        LoRA: W + scale * B @ A, with B [out, r] and A [r, in]. DoRA (arXiv:2402.09353, equation 5): the same,
        each row multiplied by magnitude / its length. In PEFT's order of operations.
        """
        low_rank = self.low_rank(delta)
        magnitude = self.file.read(delta.magnitude).to(torch.float32) if delta.magnitude else None

        def merged(base: torch.Tensor, first: int) -> torch.Tensor:
            changed = add_scaled(base, low_rank.by_torch(first, len(base)), delta.scale)
            if magnitude is not None:
                lengths = torch.linalg.norm(changed, dim=1)
                changed *= (magnitude[first : first + len(base)] / lengths).unsqueeze(1)
            return changed

        return merged

    def change(self, delta: Delta) -> Compute:
        """What makes of the same rows by how much they change, in float32.

        LoRA: scale * B @ A. DoRA: what `merger` gives less the base, as PEFT's forward pass adds up several.
        """
        if delta.magnitude is None:
            low_rank = self.low_rank(delta)
            return lambda base, first: low_rank.by_torch(first, len(base)).mul_(delta.scale)
        merged = self.merger(delta)
        return lambda base, first: merged(base, first).sub_(base.to(torch.float32))

    def low_rank(self, delta: Delta) -> LowRank:
        """scale * B @ A of the same rows."""
        rank = self.file.entries[delta.a].shape[0]
        a = self.file.float_rows(delta.a, 0, rank)
        entry = self.file.entries[delta.b]
        if entry.end - entry.start > _HELD_BYTES:
            return LowRank(
                lambda first, rows: (self.file.float_rows(delta.b, first, rows), a), delta.scale, rank
            )
        b = self.file.float_rows(delta.b, 0, entry.shape[0])
        return LowRank(lambda first, rows: (b[first : first + rows], a), delta.scale, rank)


def read_adapter(root: Path, experts: Experts | None = None) -> Adapter:
    """Read the adapter in `root`; `experts`: what its family states of them.

    Its values are not looked at: that is for `check_values`. Raises InputError with everything that this
    version does not merge and every tensor it cannot place; IntegrityError for a damaged file.
    """
    config = read_config(root, experts=experts is not None)
    file = open_tensor_file(root / ADAPTER_WEIGHTS)
    dora = bool(config.get("use_dora"))
    parts = ("A", "B", _MAGNITUDE) if dora else ("A", "B")
    rows, problems = read_rows(file, config)
    whole, wrong = read_whole(file, config)
    placed = {each.tensor for each in (*rows.values(), *whole.values())}
    found, unplaced = _parts(file, parts, placed)
    problems += wrong + unplaced
    deltas: dict[str, Delta] = {}
    fused: dict[str, ExpertDelta] = {}
    wrapped, lacking = wrapped_parameters(config, experts, found) if experts else ({}, [])
    problems += [
        Problem("is adapted, the config says, and has no lora_A and lora_B", each) for each in lacking
    ]
    for module, names in sorted(found.items()):
        problems += [Problem(f"has no lora_{part}", module) for part in parts if part not in names]
        if len(names) != len(parts):
            continue
        rank, scale = rank_and_scale(config, wrapped.get(module, module))
        if name := wrapped.get(module):
            fused[name] = ExpertDelta(name, names["A"], names["B"], scale, rank)
            if shape_of(file, fused[name]) is None:
                a, b = (list(file.entries[names[side]].shape) for side in "AB")
                problems.append(Problem(f"A is {a} and B {b}, the config says rank {rank}", name))
        else:
            deltas[module] = Delta(module, names["A"], names["B"], scale, names.get(_MAGNITUDE))
            problems += _shape_problems(file, deltas[module], rank)
    problems += [
        Problem("is held whole, and adapted too", name)
        for name in sorted(
            whole.keys() & {f"{module}.weight" for module in deltas} | whole.keys() & rows.keys()
        )
    ]
    if not found and not problems:
        problems.append(Problem("it holds no LoRA tensors", str(file.path)))
    if problems:
        raise InputError(f"the adapter in {root} cannot be merged", problems)
    return Adapter(file, deltas, fused, rows, whole)


def _parts(
    file: TensorFile, parts: Sequence[str], placed: Collection[str]
) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """By module and part the tensor's name. One that is none of `parts` or `placed`, or there twice, has no
    place."""
    found: dict[str, dict[str, str]] = {}
    problems: list[Problem] = []
    for name, entry in file.entries.items():
        if name in placed:
            continue
        match = _KEY.fullmatch(name)
        module, part = (match["module"], match["side"] or match["magnitude"]) if match else ("", "")
        if part not in parts or part in found.get(module, {}):
            problems.append(Problem("is no LoRA matrix of a linear layer: it has no place here", name))
        elif entry.dtype not in FLOATS or len(entry.shape) != (1 if part == _MAGNITUDE else 2):
            problems.append(Problem(f"is {entry.dtype} {list(entry.shape)}, not a matrix of floats", name))
        else:
            found.setdefault(module, {})[part] = name
    return found, problems


def _shape_problems(file: TensorFile, delta: Delta, rank: int) -> list[Problem]:
    a, b = file.entries[delta.a].shape, file.entries[delta.b].shape
    problems: list[Problem] = []
    if not a[0] == b[1] == rank:
        problems.append(Problem(f"A is {list(a)} and B {list(b)}, the config says rank {rank}", delta.module))
    if delta.magnitude and file.entries[delta.magnitude].shape != b[:1]:
        shape = list(file.entries[delta.magnitude].shape)
        problems.append(Problem(f"its magnitude is {shape}, B {list(b)}", delta.module))
    return problems


def check_values(adapter: Adapter) -> None:
    """Refuse (InputError) an adapter with NaN or infinite values, and one that changes nothing. Reads all of
    it."""
    problems: list[Problem] = []
    filled: dict[str, bool] = {}
    for name in adapter.file.entries:
        filled[name], finite = False, True
        # What is held whole may be an embedding of gigabytes.
        for values in adapter.file.float_blocks(name):
            filled[name] = filled[name] or bool(values.any())
            finite = finite and bool(np.isfinite(values).all())
        if not finite:
            problems.append(Problem("holds NaN or infinite values", name, "go back to a sound checkpoint"))
    if problems:
        raise InputError(f"{adapter.file.path} is broken", problems)
    # DoRA's magnitudes, new rows and what is held whole change without B @ A: that shows beside the base.
    pairs = [(each.a, each.b) for each in (*adapter.deltas.values(), *adapter.experts.values())]
    lengths = any(delta.magnitude for delta in adapter.deltas.values())
    others = lengths or adapter.rows or adapter.whole
    if not others and not any(filled[a] and filled[b] for a, b in pairs):
        raise InputError(
            f"{adapter.file.path} changes nothing: every B @ A is zero, merged would equal the base",
            [Problem("was it trained at all?", mend="look at the run's metrics.jsonl")],
        )
