"""The merged weights of a run on a base, written file by file and journalled."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.merging.change import Plan
from finetune.merging.checkpoint import INDEX, Checkpoint, open_checkpoint
from finetune.merging.combined import plan_combined
from finetune.merging.crew import Crew, crew_at_work
from finetune.merging.full import TrainedWeights, plan_full
from finetune.merging.journal import Finished, Journal
from finetune.merging.lora import plan_lora
from finetune.merging.low_rank import Product
from finetune.merging.shard import Shard, begin_shard
from finetune.merging.tensor_file import DTYPES
from finetune.merging.tied import tied_head
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.families.family import Family
from lensmith.files import sync_file

if TYPE_CHECKING:
    from finetune.combination import Combination
    from lensmith.artifact import Artifact

# Why a merge may change nothing.
_VANISHED = Problem("its changes vanish in the base's dtype", mend="look at the run's metrics.jsonl")
_CANCELLED = Problem(
    "the weighted changes cancel each other, or vanish in the base's dtype", mend="give other weights"
)


@dataclass(frozen=True)
class Merged:
    """What was written: the dtype most bytes have, tensors in all, those that hold other values now, and the
    products asked of numpy, which are right where `low_rank.multiply_alike` says so."""

    dtype: str
    tensors: int
    changed: int
    products: frozenset[Product]


def write_merged(
    root: Path, family: Family, run: Artifact, target: Path, work: Path, *, by_numpy: bool = True
) -> Merged:
    """Write the weights of `run` on the base in `root` into `target`, in the base's keys, dtypes and shards.

    work: a directory on the same disk, for this base and run alone: what is finished lies there until all is.
    After a kill the same call goes on with it. by_numpy: have numpy multiply what it may be asked for, before
    torch is imported; else all is torch's. Raises InputError for a run that cannot be merged whole, is
    broken, overflows or changes nothing.
    """
    with crew_at_work() as crew:
        base = open_checkpoint(root)
        if run.body["method"] == "full":
            trained = TrainedWeights(open_checkpoint(run.path), base, family, tied_head(root))
            plan = plan_full(trained)
        else:
            plan = plan_lora(base, family, run.path)
        return _write_plan(base, plan, run.short, target, Journal(work), crew, by_numpy=by_numpy)


def merge_adapter(root: Path, family: Family, adapter: Path, target: Path, work: Path) -> Merged:
    """As `write_merged`, of an adapter that is no run of ours, in today's names."""
    with crew_at_work() as crew:
        base = open_checkpoint(root)
        return _write_plan(base, plan_lora(base, family, adapter), str(adapter), target, Journal(work), crew)


def write_combined(
    root: Path,
    family: Family,
    adapters: Sequence[Path],
    combination: Combination,
    target: Path,
    work: Path,
) -> Merged:
    """As `write_merged`, of several adapters in today's names; refuses those that cancel each other too."""
    with crew_at_work() as crew:
        base = open_checkpoint(root)
        plan = plan_combined(base, family, adapters, combination, crew)
        what = f"the combination of {len(adapters)} adapters"
        return _write_plan(base, plan, what, target, Journal(work), crew, _CANCELLED)


def _write_plan(
    base: Checkpoint,
    plan: Plan,
    what: str,
    target: Path,
    journal: Journal,
    crew: Crew,
    unmoved: Problem = _VANISHED,
    *,
    by_numpy: bool = False,
) -> Merged:
    _write(base, plan, journal, crew, by_numpy=by_numpy)
    finished = [journal.finished[name] for name in base.files]
    computed: Counter[str] = Counter()
    for each in finished:
        computed.update(each.elements)
    wrong = sorted(
        name
        for name in plan.expected.keys() | computed.keys()
        if computed[name] != plan.expected.get(name, 0)
    )
    if wrong:
        raise IntegrityError(
            f"of {len(plan.expected)} weights {len(wrong)} were not merged exactly once",
            [Problem(f"{computed[name]} of {plan.expected.get(name, 0)} elements", name) for name in wrong],
        )
    moved = sum(len(each.moved) for each in finished)
    if not moved:
        raise InputError(
            f"{what} changes nothing: the merged weights would equal the base's",
            [unmoved],
        )
    for name in base.files:
        _place(journal.work / name, target / name)
    if base.indexed:
        _write_index(base, target)
    products = frozenset(product for each in finished for product in each.products)
    return Merged(main_dtype(base), len(base.place), moved, products)


def discard(target: Path, work: Path) -> None:
    """Take back what was written into `target`, so that all of it is written again. Killed anywhere, the next
    call of `write_merged` finds nothing that it would take for finished."""
    shutil.rmtree(work, ignore_errors=True)
    for path in target.glob("*.safetensors"):
        path.unlink()


def main_dtype(checkpoint: Checkpoint) -> str:
    """The dtype that most of the checkpoint's bytes have, by torch's name ("bfloat16")."""
    sizes: Counter[str] = Counter()
    for name in checkpoint.place:
        entry = checkpoint.entry(name)
        sizes[entry.dtype] += entry.end - entry.start
    return DTYPES[sizes.most_common(1)[0][0]].name


def _write(base: Checkpoint, plan: Plan, journal: Journal, crew: Crew, *, by_numpy: bool) -> None:
    """Write every file that the journal does not know yet. What stays is copied first, and torch
    imported meanwhile where it has to be; while one file is brought to the disk, the next is written."""
    partial = {name: journal.work / f"{name}.partial" for name in base.files.keys() - journal.finished.keys()}
    with ThreadPoolExecutor(1, "finish") as finishing:
        begun = {
            name: begin_shard(source, partial[name], plan.changes)
            for name, source in base.files.items()
            if name in partial
        }
        ends = [finishing.submit(_copy, list(begun.values()), crew)]
        if not by_numpy:
            crew.settle()
        plan.check()
        for name, shard in begun.items():
            shard.compute(crew, by_numpy=by_numpy)
            ends.append(finishing.submit(_finish, journal, name, partial[name], shard))
        for end in ends:
            end.result()


def _copy(shards: Sequence[Shard], crew: Crew) -> None:
    for shard in shards:
        shard.copy(crew)


def _finish(journal: Journal, name: str, partial: Path, shard: Shard) -> None:
    shard.finish()
    sync_file(partial)
    partial.rename(journal.work / name)
    size = (journal.work / name).stat().st_size
    journal.add(
        name,
        Finished(
            bytes=size,
            elements=dict(shard.elements),
            moved=sorted(shard.moved),
            products=sorted(shard.products),
        ),
    )


def _place(finished: Path, target: Path) -> None:
    """Have a finished file lie at `target`, and in its own place until the model is sealed, which takes a
    while too; where the disk has no second names, at `target` alone."""
    try:
        os.link(finished, target)
    except OSError:
        finished.rename(target)


def _write_index(base: Checkpoint, target: Path) -> None:
    """The base's index, with the size of all tensors in bytes: some tools write another."""
    total = sum(entry.end - entry.start for file in base.files.values() for entry in file.entries.values())
    index = json.loads((base.root / INDEX).read_bytes())
    index["metadata"] = {**index.get("metadata", {}), "total_size": total}
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
