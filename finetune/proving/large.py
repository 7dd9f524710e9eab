"""The proof of a model that cannot be held: files compared byte by byte, and a sample of what was merged."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from finetune.layout import Part as LayoutPart
from finetune.merging.tied import EMBEDDING, HEAD
from finetune.proving import sample
from finetune.proving.blocks import row_blocks
from finetune.proving.definition import Definition
from finetune.proving.part import Part, named
from finetune.proving.regions import Region
from finetune.proving.sample import Matrix, choose
from finetune.proving.weights import same_bits
from lensmith.families.family import Family

# By matrix: where in the class it lies, and which expert of a fused parameter it is.
_Places = dict[str, tuple[LayoutPart, int | None]]


@dataclass(frozen=True)
class _Matrices:
    """What is merged of a checkpoint. same: stretches of tensors that stay, in base and model."""

    merged: list[Matrix]
    places: _Places
    same: list[tuple[str, Region, Region]]


def sampled_part(
    base: dict[str, Region],
    model: dict[str, Region],
    definition: Definition,
    family: Family,
    seed: str,
) -> Part:
    """Names, shapes, dtypes and shards of all tensors are the base's; every byte that no training reached is
    the base's; of what was merged, a sample (`sample.choose`) equals its definition in every bit.

    seed: the model's id. Holds a block of rows, or an expert, at a time.
    """
    findings = named("tensors of the base are missing", sorted(base.keys() - model.keys()))
    findings += named("tensors are not in the base", sorted(model.keys() - base.keys()))
    common = sorted(base.keys() & model.keys())
    findings += named(
        "tensors lie in another shard", [n for n in common if base[n].file.name != model[n].file.name]
    )
    findings += named(
        "tensors have another shape or dtype",
        [n for n in common if (base[n].shape, base[n].dtype) != (model[n].shape, model[n].dtype)],
    )
    findings += named("trained tensors are not in the base", sorted(definition.places.keys() - base.keys()))
    if findings:
        return Part({"form": "sampled", "tensors": len(common)}, findings)
    found = _matrices(base, model, definition, family)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        equal = list(pool.map(lambda each: each[1].same_bytes(each[2]), found.same))
    touched = sorted({name for (name, *_), same in zip(found.same, equal, strict=True) if not same})
    findings += named("tensors that were not trained differ from the base", touched)
    chosen = choose(found.merged, seed, len(found.merged) if definition.all else sample.DRAWN)
    wrong: list[str] = []
    changed = 0
    with _one_thread():
        # In the order of the files, where neighbours have much in common.
        for matrix in sorted(chosen.matrices, key=lambda each: (each.disk, each.first)):
            part, expert = found.places[matrix.name]
            equal_bits, moved = True, False
            for first, end in _blocks(matrix, base[matrix.disk], definition.undivided(part.name)):
                old, new = (
                    each[matrix.disk].read(matrix.first + first, matrix.first + end) for each in (base, model)
                )
                equal_bits &= same_bits(definition.rows(part, expert, old, first).to(old.dtype), new)
                moved |= not same_bits(old, new)
            changed += moved
            if not equal_bits:
                wrong.append(matrix.name)
    findings += named("merged matrices differ from the definition", wrong)
    if not changed:
        findings.append("no matrix of the sample differs from the base: nothing was merged")
    facts = {
        "form": "sampled",
        "tensors": len(common),
        "merged": len(definition.places),
        "untouched": len(common) - len(definition.places),
        **chosen.facts(),
        "bit_equal": len(chosen.matrices) - len(wrong),
        "changed": changed,
    }
    return Part(facts, findings)


def _matrices(
    base: dict[str, Region], model: dict[str, Region], definition: Definition, family: Family
) -> _Matrices:
    untouched = [(name, base[name], model[name]) for name in base if name not in definition.places]
    found = _Matrices([], {}, untouched)
    for disk, parts in definition.places.items():
        at = 0
        for part in parts:
            end = at + definition.length(part, base[disk])
            one_by_one = definition.is_fused(part)
            if not definition.changes(part.name) or not base[disk].is_float or not base[disk].shape:
                found.same.append((disk, base[disk].part(at, end), model[disk].part(at, end)))
            else:
                # A tensor that holds several weights, or all experts of a layer, is several matrices.
                numbers = list(range(end - at)) if one_by_one else [None]
                for number in numbers:
                    name = disk if len(parts) == 1 else f"{disk} ({part.name})"
                    name += f"[{number}]" if number is not None else ""
                    matrix = Matrix(
                        name,
                        disk,
                        first=at + (number or 0),
                        rows=1 if one_by_one else end - at,
                        shard=base[disk].file.name,
                        tower=family.find_tower(part.name) or "",
                        experts=part.name if one_by_one or part.expert is not None else "",
                        always=part.name.endswith((EMBEDDING, HEAD)),
                    )
                    found.merged.append(matrix)
                    found.places[name] = (part, number)
            at = end
    return found


def _blocks(matrix: Matrix, region: Region, undivided: bool) -> list[tuple[int, int]]:
    """Rows `[first, end)` of a matrix that are computed at a time."""
    return [(0, matrix.rows)] if undivided else row_blocks(matrix.rows, math.prod(region.shape[1:]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have torch compute with one thread: in blocks so small several wait for each other longer than they
    compute, and take five times as much of the processors' time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
