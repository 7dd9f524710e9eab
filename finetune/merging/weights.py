"""The merged weights of a run on a base, written tensor by tensor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune.layout import read_places
from finetune.merging.adapter import check_fits, read_adapter
from finetune.merging.checkpoint import INDEX, Checkpoint, open_checkpoint
from finetune.merging.experts import expert_merger
from finetune.merging.full import TrainedWeights, check_full, full_weights
from finetune.merging.start import start_of
from finetune.merging.tensor_file import DTYPES, rewrite
from finetune.merging.tied import tied_head
from lensmith.artifact import Artifact
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.families.family import Family

# Gives the new value of the base's tensor of that name, or None where it stays as it is.
Changed = Callable[[str], torch.Tensor | None]


@dataclass(frozen=True)
class Merged:
    """What was written: the dtype most bytes have, tensors in all, and those that hold other values now."""

    dtype: str
    tensors: int
    changed: int


def write_merged(root: Path, family: Family, run: Artifact, target: Path) -> Merged:
    """Write the weights of `run` on the base in `root` into `target`, in the base's keys, dtypes and shards.

    Raises InputError for a run that cannot be merged whole, is broken, overflows or changes nothing.
    """
    base = open_checkpoint(root)
    used: Counter[str] = Counter()
    make = _full if run.body["method"] == "full" else _lora
    changed, expected = make(base, family, run, used)
    moved = _write(base, target, changed)
    unused = [name for name in expected if used[name] != 1]
    if unused or len(used) != len(expected):
        raise IntegrityError(
            f"{sum(used.values())} weights were merged, the run has {len(expected)}",
            [Problem("was not merged exactly once", name) for name in unused],
        )
    if not moved:
        raise InputError(
            f"{run.short} changes nothing: the merged weights would equal the base's",
            [Problem("its changes vanish in the base's dtype", mend="look at the run's metrics.jsonl")],
        )
    return Merged(main_dtype(base), len(base.place), moved)


def main_dtype(checkpoint: Checkpoint) -> str:
    """The dtype that most of the checkpoint's bytes have, by torch's name ("bfloat16")."""
    sizes: Counter[str] = Counter()
    for name in checkpoint.place:
        entry = checkpoint.entry(name)
        sizes[entry.dtype] += entry.end - entry.start
    return str(DTYPES[sizes.most_common(1)[0][0]]).removeprefix("torch.")


def _lora(base: Checkpoint, family: Family, run: Artifact, used: Counter[str]) -> tuple[Changed, list[str]]:
    """What becomes of each tensor on disk, and the weights that must be counted in `used` once."""
    adapter = read_adapter(run.path, family.experts)
    tied = tied_head(base.root)
    heads = [module for module in adapter.deltas if tied and f"{module}.weight" == tied]
    if heads:
        raise InputError(
            "the adapter changes the output head, which the base ties to its embeddings",
            [Problem("merging it would change the embeddings too", heads[0], "train without the head")],
        )
    places, shapes = read_places(base.root, family)
    check_fits(adapter, base, places, shapes)
    start = start_of(run.path)
    deltas = {f"{module}.weight": delta for module, delta in adapter.deltas.items()}
    changing = {*deltas, *start.changed, *adapter.rows}
    merge_experts = expert_merger(adapter.file, adapter.experts)
    # Fused experts may be many tensors on disk: each counts.
    # The embeddings under a second name: a tied head that is stored all the same.
    twins = [tied] if tied in base.place and adapter.rows else []
    fused = [name for name, parts in places.items() if any(part.name in adapter.experts for part in parts)]

    def changed(name: str) -> torch.Tensor | None:
        if name in twins:
            used[name] += 1
            (rows,) = adapter.rows.values()
            return rows.merged(adapter.file, base.place[name].read(name))
        parts = places.get(name, ())
        if not any(part.name in changing or part.name in adapter.experts for part in parts):
            return None
        whole = base.place[name].read(name)
        pieces = whole.split([part.shape(shapes[part.name])[0] for part in parts])
        for part, piece in zip(parts, pieces, strict=True):
            if part.name in changing:
                weight, delta = start.of(part.name, piece), deltas.get(part.name)
                weight = weight if delta is None else adapter.merged(delta, weight)
                rows = adapter.rows.get(part.name)
                piece.copy_(weight if rows is None else rows.merged(adapter.file, weight))
                used[part.name] += 1
            elif part.name in adapter.experts:
                merge_experts(part, piece)
                used[name] += 1
        return whole

    return changed, [*sorted(changing), *fused, *twins]


def _full(base: Checkpoint, family: Family, run: Artifact, used: Counter[str]) -> tuple[Changed, list[str]]:
    tied = tied_head(base.root)
    places, _ = read_places(base.root, family)
    trained = TrainedWeights(open_checkpoint(run.path), base, family.layout, places)
    check_full(trained, base, tied)
    value = full_weights(trained, base, tied)

    def changed(name: str) -> torch.Tensor:
        used[name] += 1
        return value(name)

    return changed, list(base.place)


def _write(base: Checkpoint, target: Path, changed: Changed) -> int:
    """Write every shard; how many tensors hold other values now."""
    moved = 0

    def counted(name: str) -> torch.Tensor | None:
        nonlocal moved
        tensor = changed(name)
        if tensor is None:
            return None
        if not torch.isfinite(tensor).all():
            raise InputError(
                "the merged weights overflow the base's dtype", [Problem("NaN or infinite", name)]
            )
        moved += not torch.equal(tensor, base.place[name].read(name))
        return tensor

    total = sum(rewrite(file, target / name, counted) for name, file in base.files.items())
    if base.indexed:
        index = json.loads((base.root / INDEX).read_bytes())
        index["metadata"] = {**index.get("metadata", {}), "total_size": total}
        (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return moved
