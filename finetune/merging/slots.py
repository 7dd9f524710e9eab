"""Where on disk the weights lie that an adapter changes: by the family's layout and the files' own headers.

The class is not asked: importing it takes longer than merging, and more memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from finetune.layout import Part, expert_places
from finetune.merging.checkpoint import Checkpoint
from finetune.merging.tensor_file import FLOATS
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family

_SHOWN = 20


@dataclass(frozen=True)
class Slot:
    """What `rows` of a tensor's first dimension hold."""

    part: Part
    rows: int


Slots = dict[str, tuple[Slot, ...]]


@dataclass(frozen=True)
class Wanted:
    """A weight of the class that changes. shape: its own, None where nothing but the base says it. tensor: of
    the adapter, that changes it. fused: it is a parameter of routed experts."""

    shape: tuple[int, ...] | None
    tensor: str
    fused: bool = False


def find_slots(wanted: Mapping[str, Wanted], base: Checkpoint, family: Family) -> Slots:
    """By tensor on disk what it holds, of each that holds a wanted weight or a part of one.

    Raises InputError with every weight that the base lacks, has in another shape, or not as floats.
    """
    slots: Slots = {}
    problems: list[Problem] = []
    for name, each in wanted.items():
        found = _slots_of(name, each, base, family)
        missing = [disk for disk in found if disk not in base.place]
        # A missing expert says it for all.
        problems += [Problem(f"the base has no {disk}", each.tensor) for disk in missing[:1]]
        if not missing:
            slots |= found
            problems += _misfits(name, each, found, base)
            problems += _left_over(name, each, found, base, family)
    if problems:
        more = [Problem(f"and {len(problems) - _SHOWN} more")] if len(problems) > _SHOWN else []
        raise InputError("the adapter belongs to another base", [*problems[:_SHOWN], *more])
    return slots


def is_there(name: str, base: Checkpoint, family: Family) -> bool:
    """Whether the base holds a weight of this name in the class."""
    return _slots_of(name, Wanted(None, name), base, family).keys() <= base.place.keys()


def _slots_of(name: str, wanted: Wanted, base: Checkpoint, family: Family) -> Slots:
    layout = family.layout
    if wanted.fused and family.experts and wanted.shape:
        places = expert_places(name, wanted.shape, family.experts)
        held = {
            disk: tuple(Slot(part, part.shape(wanted.shape)[0]) for part in parts)
            for disk, parts in places.items()
        }
        return {layout.disk_name(disk): slots for disk, slots in held.items()}
    for joined in layout.joined:
        if match := joined.find(name):
            disk, *likes = (
                layout.disk_name(f"{match['block']}.{module}.{match['ending']}")
                for module in (joined.disk, *([joined.like] if joined.like else []))
            )
            names = [f"{match['block']}.{part}.{match['ending']}" for part in joined.parts]
            sizes = _sizes(disk, likes, len(names), base)
            return {disk: tuple(Slot(Part(each), size) for each, size in zip(names, sizes, strict=True))}
    for cut in layout.cut:
        if name == cut.name:
            disks = [layout.disk_name(cut.first), layout.disk_name(cut.rest)]
            first, rest = (base.entry(disk).shape[0] if disk in base.place else 0 for disk in disks)
            parts = [Part(name, rows=(0, first)), Part(name, rows=(first, first + rest))]
            return {disks[0]: (Slot(parts[0], first),), disks[1]: (Slot(parts[1], rest),)}
    disk = layout.disk_name(name)
    return {disk: (Slot(Part(name), base.entry(disk).shape[0] if disk in base.place else 0),)}


def _sizes(disk: str, likes: list[str], count: int, base: Checkpoint) -> list[int]:
    """Rows of each of `count` parts that a tensor on disk joins."""
    if not {disk, *likes} <= base.place.keys():
        return [0] * count
    whole = base.entry(disk).shape[0]
    if not likes:
        return [whole // count] * count
    first = base.entry(likes[0]).shape[1]
    return [first, *[(whole - first) // (count - 1)] * (count - 1)]


def _left_over(
    name: str, wanted: Wanted, found: Slots, base: Checkpoint, family: Family
) -> Iterator[Problem]:
    """An expert that the base has apart and the adapter has not."""
    if wanted.fused and wanted.shape:
        count, *rest = wanted.shape
        one_more = _slots_of(name, replace(wanted, shape=(count + 1, *rest)), base, family)
        beyond = [disk for disk in one_more if disk not in found and disk in base.place]
        if beyond:
            yield Problem(f"the base has {beyond[0]}, the adapter's experts are {count}", wanted.tensor)


def _misfits(name: str, wanted: Wanted, found: Slots, base: Checkpoint) -> Iterator[Problem]:
    for disk, slots in found.items():
        entry = base.entry(disk)
        if entry.dtype not in FLOATS:
            yield Problem(f"is {entry.dtype}: merge into the dequantised base", disk)
        if wanted.shape is None:
            continue
        rows = sum(slot.rows for slot in slots)
        for slot in slots:
            if slot.part.name != name:
                continue
            held = slot.part.shape(wanted.shape)
            if (slot.rows, rows, *entry.shape[1:]) != (held[0], entry.shape[0], *held[1:]):
                stored = [slot.rows if rows == entry.shape[0] else entry.shape[0], *entry.shape[1:]]
                yield Problem(f"is {stored}, the adapter's {list(held)}", disk)
                # Of experts one says it for all.
                return
