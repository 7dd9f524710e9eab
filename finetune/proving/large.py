"""The proof of a model that cannot be held: files compared byte by byte, and a sample of what was merged."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.layout import Part as LayoutPart
from finetune.merging.tied import EMBEDDING, HEAD
from finetune.proving import sample
from finetune.proving.blocks import row_blocks
from finetune.proving.definition import Definition
from finetune.proving.part import Part, named
from finetune.proving.regions import Region
from finetune.proving.sample import Matrix, choose
from finetune.proving.threads import MOST, threads
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


class _Judged(NamedTuple):
    """Of a matrix: whether it equals its definition in every bit, and whether it differs from the base's."""

    name: str
    as_defined: bool
    changed: bool


def sampled_part(
    base: dict[str, Region],
    model: dict[str, Region],
    definition: Definition,
    family: Family,
    seed: str,
) -> Part:
    """Names, shapes, dtypes and shards of all tensors are the base's; every byte that no training reached is
    the base's; of what was merged, a sample (`sample.choose`) equals its definition in every bit.

    seed: the model's id. Each thread holds a block of rows, or an expert, at a time.
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
    chosen = choose(found.merged, seed, len(found.merged) if definition.all else sample.DRAWN)
    # What is whole in memory, with all that it takes to compute it, is so one at a time.
    undivided = any(definition.undivided(found.places[each.name][0].name) for each in chosen.matrices)
    with threads(1 if undivided else MOST) as pool:
        equal = list(pool.map(lambda each: each[1].same_bytes(each[2]), found.same))
        judge = functools.partial(_judge, base, model, definition, found.places)
        weights = by_weight(chosen.matrices, found.places)
        judged = [each for of_weight in pool.map(judge, weights) for each in of_weight]
    touched = sorted({name for (name, *_), same in zip(found.same, equal, strict=True) if not same})
    findings += named("tensors that were not trained differ from the base", touched)
    wrong = [each.name for each in judged if not each.as_defined]
    changed = sum(each.changed for each in judged)
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


def by_weight(matrices: Sequence[Matrix], places: _Places) -> list[list[Matrix]]:
    """What one thread proves, one after the other: matrices of one weight of the class have what is read of
    the adapter in common, and PEFT's layer, which holds it."""
    found: dict[str, list[Matrix]] = {}
    # In the order of the files.
    for each in sorted(matrices, key=lambda each: (each.disk, each.first)):
        found.setdefault(places[each.name][0].name, []).append(each)
    return list(found.values())


def _judge(
    base: dict[str, Region],
    model: dict[str, Region],
    definition: Definition,
    places: _Places,
    matrices: Sequence[Matrix],
) -> list[_Judged]:
    """Compute `matrices` anew."""
    found: list[_Judged] = []
    for matrix in matrices:
        part, expert = places[matrix.name]
        equal, changed = True, False
        for first, end in _blocks(matrix, base[matrix.disk], definition.undivided(part.name)):
            old, new = (
                each[matrix.disk].read(matrix.first + first, matrix.first + end) for each in (base, model)
            )
            equal &= same_bits(definition.rows(part, expert, old, first).to(old.dtype), new)
            changed |= not same_bits(old, new)
        found.append(_Judged(matrix.name, equal, changed))
    return found


def _blocks(matrix: Matrix, region: Region, undivided: bool) -> list[tuple[int, int]]:
    """Rows `[first, end)` of a matrix that are computed at a time."""
    return [(0, matrix.rows)] if undivided else row_blocks(matrix.rows, math.prod(region.shape[1:]))
