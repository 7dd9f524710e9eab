"""Merge: a base and what was trained on it in, a model artifact out.

The definition: the base's weight in float32 plus scale * B @ A in float32, rounded once to the base's dtype.
Works on the safetensors files, a tensor at a time, and keeps the base's keys, dtypes and shards.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from finetune.merging.adapter import Adapter, check_fits, read_adapter
from finetune.merging.checkpoint import INDEX, Checkpoint, open_checkpoint
from finetune.merging.companions import copy_companions
from finetune.merging.full import check_full, full_weights
from finetune.merging.tensor_file import DTYPES, rewrite
from finetune.merging.tied import tied_head
from lensmith.artifact import Artifact, verify
from lensmith.base import checkpoint_path, template_digest, verify_base
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.home import Home
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe

# Gives the new value of the base's tensor of that name, or None where it stays as it is.
Changed = Callable[[str], torch.Tensor | None]


def merge_key(recipe: Recipe, base: Artifact, run: Artifact) -> str:
    """The key of the model that `merge` makes."""
    asked = {"pixels": recipe.pixels and recipe.pixels.model_dump(mode="json"), "licence": recipe.licence}
    inputs = {"base": base.id, "run": run.id}
    return stage_key("merge", "finetune.merge", ("torch",), asked, inputs)


def merge(recipe: Recipe, home: Home, base: Artifact, run: Artifact) -> Artifact:
    """The model artifact of `run` on `base`: a checkpoint directory that any tool of its family opens.

    Raises InputError for an adapter of another base, one that cannot be merged whole, is broken or changes
    nothing; IntegrityError where base or run are not what was pinned or a shard is damaged.
    """
    check_pair(base, run)
    key = merge_key(recipe, base, run)
    if found := home.find("model", key):
        return found
    started = time.monotonic()
    verify_base(base)
    verify(run)
    source = open_checkpoint(checkpoint_path(base))
    with home.create("model", key, {"base": base, "run": run}) as draft:
        changed, expected = _full(source, run) if run.body["method"] == "full" else _lora(source, run)
        used, moved = _write(source, draft.path, changed)
        if expected is not None and used != Counter(expected):
            raise IntegrityError(
                f"{sum(used.values())} weights were merged, the adapter has {len(expected)}",
                [Problem("was not merged exactly once", name) for name in expected if used[name] != 1],
            )
        if not moved:
            raise InputError(
                f"{run.short} changes nothing: the merged weights would equal the base's",
                [Problem("its changes vanish in the base's dtype", mend="look at the run's metrics.jsonl")],
            )
        copy_companions(source.root, draft.path, recipe.pixels)
        draft.body.update(
            method=run.body["method"],
            family=recipe.family,
            dtype=main_dtype(source),
            template=template_digest(draft.path),
            licence=recipe.licence,
            pixels=recipe.pixels and recipe.pixels.model_dump(mode="json"),
            tensors=len(source.place),
            tensors_changed=moved,
        )
        draft.record.update(seconds=round(time.monotonic() - started, 3))
    return draft.artifact


def check_pair(base: Artifact, run: Artifact) -> None:
    """Refuse (InputError) anything but a run and the very base it was trained on."""
    if run.kind != "run":
        raise InputError(f"{run.short} is not a run", [Problem("only what training wrote can be merged")])
    if base.kind != "base":
        mend = "merge into the base that the run names"
        raise InputError(
            f"{base.short} is not a base", [Problem("a merged model would be merged twice", mend=mend)]
        )
    trained_on = run.manifest.inputs.get("base")
    if trained_on != base.id:
        raise InputError(
            f"{run.short} was trained on another base",
            [Problem(f"on base-{str(trained_on)[:12]}, not {base.short}", mend="give the base it names")],
        )


def main_dtype(checkpoint: Checkpoint) -> str:
    """The dtype that most of the checkpoint's bytes have, by torch's name ("bfloat16")."""
    sizes: Counter[str] = Counter()
    for name in checkpoint.place:
        entry = checkpoint.entry(name)
        sizes[entry.dtype] += entry.end - entry.start
    return str(DTYPES[sizes.most_common(1)[0][0]]).removeprefix("torch.")


def _lora(base: Checkpoint, run: Artifact) -> tuple[Changed, list[str]]:
    adapter: Adapter = read_adapter(run.path)
    check_fits(adapter, base)
    tied = tied_head(base.root)
    heads = [module for module in adapter.deltas if tied and f"{module}.weight" == tied]
    if heads:
        raise InputError(
            "the adapter changes the output head, which the base ties to its embeddings",
            [Problem("merging it would change the embeddings too", heads[0], "train without the head")],
        )

    def changed(name: str) -> torch.Tensor | None:
        delta = adapter.deltas.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if delta is None:
            return None
        stored = base.place[name].read(name)
        return (stored.to(torch.float32) + adapter.compute(delta)).to(stored.dtype)

    return changed, [f"{module}.weight" for module in adapter.deltas]


def _full(base: Checkpoint, run: Artifact) -> tuple[Changed, None]:
    trained = open_checkpoint(run.path)
    tied = tied_head(base.root)
    check_full(trained, base, tied)
    return full_weights(trained, base, tied), None


def _write(base: Checkpoint, target: Path, changed: Changed) -> tuple[Counter[str], int]:
    """Write every shard; how often each tensor was replaced, and how many of them hold other values now."""
    used: Counter[str] = Counter()
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
        used[name] += 1
        moved += not torch.equal(tensor, base.place[name].read(name))
        return tensor

    total = sum(rewrite(file, target / name, counted) for name, file in base.files.items())
    if base.indexed:
        index = json.loads((base.root / INDEX).read_bytes())
        index["metadata"] = {**index.get("metadata", {}), "total_size": total}
        (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return used, moved
