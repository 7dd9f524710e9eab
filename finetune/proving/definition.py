"""What rows of a merged tensor should be, for models that cannot be held."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from finetune.combination import Combination
from finetune.layout import Part, Places, Shapes, read_places
from finetune.merging.tied import EMBEDDING, tied_head
from finetune.proving.blocks import row_blocks
from finetune.proving.combination import combined, outcome
from finetune.proving.on_demand import AdapterOnDemand
from finetune.proving.regions import Region, read_regions
from finetune.proving.staying import Staying, staying_in
from finetune.quantized import Quantized
from lensmith.families.family import Family


class Definition(Protocol):
    """By tensor on disk, and row, what it becomes."""

    @property
    def places(self) -> Places:
        """By tensor on disk what it holds, of each that changes."""
        ...

    @property
    def all(self) -> bool:
        """Whether it is cheap enough to look at everything."""
        ...

    def changes(self, name: str) -> bool:
        """Whether a weight of the class changes."""
        ...

    def is_fused(self, part: Part) -> bool:
        """Whether the first dimension of what `part` says counts experts."""
        ...

    def undivided(self, name: str) -> bool:
        """Whether a weight's rows can only be computed all at a time."""
        ...

    def length(self, part: Part, region: Region) -> int:
        """How many entries of the first dimension `part` has, in a tensor that lies in `region`."""
        ...

    def rows(self, part: Part, expert: int | None, base: Tensor, first: int) -> Tensor:
        """What `base`, rows of a part on disk from its row `first` on, become, in a dtype from which they are
        rounded once. `expert`: which one of a fused parameter they are."""
        ...


@dataclass(frozen=True)
class LoraDefinition:
    """The base's weight in float32, or what it was worth in 4 bits, plus the adapter's change."""

    adapter: AdapterOnDemand
    quantized: Quantized | None
    places: Places
    shapes: Shapes
    all: bool = False

    @functools.cached_property
    def names(self) -> set[str]:
        """The weights of the class that change."""
        held = {f"{name}.weight" for name in self.quantized.linears} if self.quantized else set()
        adapter = self.adapter
        return held.union(adapter.linears, adapter.experts, adapter.rows, adapter.whole)

    def changes(self, name: str) -> bool:
        return name in self.names

    def is_fused(self, part: Part) -> bool:
        return part.name in self.adapter.experts and part.expert is None

    def undivided(self, name: str) -> bool:
        return self.quantized is not None and name.removesuffix(".weight") in self.quantized.linears

    def length(self, part: Part, region: Region) -> int:
        return part.shape(self.shapes[part.name])[0]

    def rows(self, part: Part, expert: int | None, base: Tensor, first: int) -> Tensor:
        name = part.name
        if name in self.adapter.experts:
            number = part.expert if expert is None else expert
            assert number is not None
            one = replace(part, expert=0).of(self.adapter.expert(name, number)[None])
            return base.float() + (one[first : first + len(base)] if expert is None else one[None])
        first += part.rows[0] if part.rows else 0
        if numbers := self.adapter.rows.get(name):
            return self._placed(name, numbers, base, first)
        if name in self.adapter.whole:
            return self.adapter.held(name, base, first)
        start = self._start(name, base)
        return self.adapter.linear(name, start, first) if name in self.adapter.linears else start

    def _placed(self, name: str, numbers: list[int], base: Tensor, first: int) -> Tensor:
        result = base.clone()
        for number, row in zip(numbers, self.adapter.new_rows(name), strict=True):
            if first <= number < first + len(base):
                result[number - first] = row.to(base.dtype)
        return result

    def _start(self, name: str, base: Tensor) -> Tensor:
        if self.quantized is None or not self.undivided(name):
            return base.float()
        # Imported only where it is used: bitsandbytes takes seconds.
        from finetune.four_bit import dequantized

        # The training itself noted the digest of what it computed with; this raises where it is another.
        return dequantized(self.quantized, name.removesuffix(".weight"), base).float()


@dataclass(frozen=True)
class CombinedDefinition:
    """The base's weight in float32 plus what the changes of several adapters are combined to.

    What stays of a matrix is said by the whole of it, an adapter and some rows at a time; their values are
    computed again. base: where its tensors lie.
    """

    adapters: Sequence[AdapterOnDemand]
    combination: Combination
    base: Mapping[str, Region]
    places: Places
    shapes: Shapes
    all: bool = False
    # Of the weight that a thread is at.
    _last: threading.local = field(default_factory=threading.local)

    @functools.cached_property
    def names(self) -> set[str]:
        """The weights of the class that change."""
        return {name for each in self.adapters for name in (*each.linears, *each.experts)}

    def changes(self, name: str) -> bool:
        return name in self.names

    def is_fused(self, part: Part) -> bool:
        return part.expert is None and any(part.name in each.experts for each in self.adapters)

    def undivided(self, name: str) -> bool:
        return False

    def length(self, part: Part, region: Region) -> int:
        return part.shape(self.shapes[part.name])[0]

    def rows(self, part: Part, expert: int | None, base: Tensor, first: int) -> Tensor:
        name = part.name
        if any(name in each.experts for each in self.adapters):
            number = part.expert if expert is None else expert
            assert number is not None
            one = replace(part, expert=0).of(self._expert(name, number)[None])
            return base.float() + (one[first : first + len(base)] if expert is None else one[None])
        first += part.rows[0] if part.rows else 0
        start = base.float()
        changes = {
            n: each.change(name, start, first) for n, each in enumerate(self.adapters) if name in each.linears
        }
        staying = self._staying(name)
        here = {n: staying[n].of(change, first) for n, change in changes.items()}
        return start + outcome(changes, here, self.combination)

    def _expert(self, name: str, number: int) -> Tensor:
        """float32 [out, in]: what is added to one expert of a fused parameter."""
        changes = {
            n: each.expert(name, number) for n, each in enumerate(self.adapters) if name in each.experts
        }
        return combined(changes, self.combination, name, number)

    def _staying(self, name: str) -> dict[int, Staying]:
        if getattr(self._last, "name", None) != name:
            rows, width = self.shapes[name]
            self._last.name, self._last.staying = (
                name,
                {
                    n: staying_in(
                        functools.partial(self._blocks, name, each), (rows, width), n, self.combination, name
                    )
                    for n, each in enumerate(self.adapters)
                    if name in each.linears
                },
            )
        return self._last.staying

    def _blocks(self, name: str, adapter: AdapterOnDemand) -> Iterator[Tensor]:
        """An adapter's change of a linear's weight, in blocks of rows, those of its first row first."""
        width = self.shapes[name][1]
        for first, region in self._stretches(name):
            for begin, end in row_blocks(region.shape[0], width):
                start = torch.empty(end - begin, width, device="meta")
                if adapter.is_dora(name):
                    start = region.read(begin, end).float()
                yield adapter.change(name, start, first + begin)

    def _stretches(self, name: str) -> list[tuple[int, Region]]:
        """Where on disk a linear's rows lie: the first of each stretch, and the stretch, in their order."""
        found: list[tuple[int, Region]] = []
        for disk, parts in self.places.items():
            at = 0
            for part in parts:
                end = at + self.length(part, self.base[disk])
                if part.name == name:
                    found.append((part.rows[0] if part.rows else 0, self.base[disk].part(at, end)))
                at = end
        return sorted(found, key=lambda each: each[0])


@dataclass(frozen=True)
class FullDefinition:
    """The run's own weights."""

    trained: dict[str, Region]
    places: Places
    all: bool = True

    def changes(self, name: str) -> bool:
        return True

    def is_fused(self, part: Part) -> bool:
        return part.transposed

    def undivided(self, name: str) -> bool:
        return False

    def length(self, part: Part, region: Region) -> int:
        return region.shape[0] if region.shape else 1

    def rows(self, part: Part, expert: int | None, base: Tensor, first: int) -> Tensor:
        at = first if expert is None else expert
        rows = self.trained[part.name].read(at, at + len(base))
        return rows.transpose(-2, -1) if part.transposed else rows


def lora_definition(
    root: Path, run: Path, family: Family, base: Mapping[str, Region], quantized: Quantized | None
) -> LoraDefinition:
    """That of the adapter in `run` on the checkpoint `root`, whose tensors are `base`.

    Raises IntegrityError where PEFT would not load exactly the file's tensors.
    """
    places, shapes = read_places(root, family)
    definition = LoraDefinition(AdapterOnDemand(root, run), quantized, {}, shapes)
    _place(definition, places)
    # The embeddings under a second name: a tied head that is stored all the same.
    if (tied := tied_head(root)) and tied in base:
        for name in definition.adapter.rows:
            definition.places[tied] = (Part(name),)
    return definition


def combined_definition(
    root: Path,
    adapters: Sequence[Path],
    family: Family,
    base: Mapping[str, Region],
    combination: Combination,
) -> CombinedDefinition:
    """That of `adapters`, combined, on the checkpoint `root`, whose tensors are `base`.

    Raises IntegrityError where PEFT would not load exactly the tensors of one's file.
    """
    places, shapes = read_places(root, family)
    definition = CombinedDefinition(
        [AdapterOnDemand(root, each) for each in adapters], combination, base, {}, shapes
    )
    _place(definition, places)
    return definition


def _place(definition: LoraDefinition | CombinedDefinition, places: Places) -> None:
    """Put in where the weights that change lie. One without a place keeps its name, found nowhere."""
    definition.places.update(
        {
            disk: parts
            for disk, parts in places.items()
            if any(definition.changes(part.name) for part in parts)
        }
    )
    placed = {part.name for parts in definition.places.values() for part in parts}
    definition.places.update({name: (Part(name),) for name in definition.names - placed})


def full_definition(run: Path, base: Mapping[str, Region], tied: str | None) -> FullDefinition:
    """That of a run of method full on a checkpoint whose tensors are `base`. tied: the name of a head that is
    tied to the embeddings.

    A tensor that the run holds neither as the base nor with its experts the other way round has none.
    """
    trained = read_regions(run)
    places: Places = {}
    for name, region in base.items():
        source = name
        if name == tied and name not in trained:
            source = next((each for each in trained if each.endswith(EMBEDDING)), name)
        held = trained[source].shape if source in trained else None
        if held == region.shape:
            places[name] = (Part(source),)
        elif held and len(held) == 3 and (held[0], held[2], held[1]) == region.shape:
            places[name] = (Part(source, transposed=True),)
    return FullDefinition(trained, places)
