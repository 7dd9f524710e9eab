"""A model's tensors as its family's published checkpoints keep them: other names, joined, cut, transposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.merging.late import torch
from lensmith.families.experts import Experts, value_at
from lensmith.families.family import Family
from lensmith.families.layout import Joined

_GATE_UP, _HALVES = "gate_up_proj", ("gate_proj", "up_proj")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """A tensor of transformers' class, or a piece of it, where a tensor on disk holds it.

    name: in the class. expert: of a fused weight [experts, out, in] only this one. rows: then only these of
    the first dimension. transposed: then the last two dimensions change places.
    """

    name: str
    expert: int | None = None
    rows: tuple[int, int] | None = None
    transposed: bool = False

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """The piece of the class's tensor as it lies on disk: a view of `whole`."""
        piece = whole if self.expert is None else whole[self.expert]
        piece = piece if self.rows is None else piece[slice(*self.rows)]
        return piece.transpose(-2, -1) if self.transposed else piece

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """That of the piece, `whole` being the class's tensor's."""
        shape = list(whole if self.expert is None else whole[1:])
        if self.rows is not None:
            shape[0] = len(range(*slice(*self.rows).indices(shape[0])))
        if self.transposed:
            shape[-2], shape[-1] = shape[-1], shape[-2]
        return tuple(shape)


# By each tensor on disk what it holds, one part after the other along the first dimension.
Places = dict[str, tuple[Part, ...]]


def read_places(checkpoint: Path, family: Family) -> tuple[Places, Shapes]:
    """Where a published checkpoint of this config keeps each tensor of transformers' class, and their shapes
    in the class."""
    # Imported here: writing weights needs no models.
    from finetune.model import load_skeleton

    model = load_skeleton(checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return find_places(shapes, family, model.config.to_dict()), shapes


def find_places(shapes: Shapes, family: Family, config: Mapping[str, Any]) -> Places:
    """As `read_places`, of a class with tensors of these names and shapes and this config as the class holds
    it. A head that is tied to the embeddings is left out."""
    places: Places = {name: (Part(name),) for name in shapes}
    if config.get("tie_word_embeddings"):
        places.pop("lm_head.weight", None)
    if family.experts is not None:
        for name in family.experts.fused(config):
            del places[name]
            places |= expert_places(name, shapes[name], family.experts)
    for joined in family.layout.joined:
        _join(places, joined)
    for cut in family.layout.cut:
        (whole,) = places.pop(cut.name)
        rows, end = value_at(config, cut.rows), shapes[cut.name][0]
        places[cut.first] = (replace(whole, rows=(0, rows)),)
        places[cut.rest] = (replace(whole, rows=(rows, end)),)
    return {family.layout.disk_name(name): parts for name, parts in places.items()}


def expert_places(name: str, shape: Sequence[int], experts: Experts) -> Places:
    """Where a fused parameter of this name and shape lies on disk, before renames."""
    if experts.stored == "transposed":
        return {name: (Part(name, transposed=True),)}
    module, _, parameter = name.rpartition(".")
    count, out = shape[:2]
    pieces: list[tuple[str, tuple[int, int] | None]] = [(parameter, None)]
    if parameter == _GATE_UP:
        pieces = list(zip(_HALVES, ((0, out // 2), (out // 2, out)), strict=True))
    return {
        f"{module}.{number}.{piece}.weight": (Part(name, number, rows),)
        for piece, rows in pieces
        for number in range(count)
    }


def _join(places: Places, joined: Joined) -> None:
    before, _, behind = joined.block.partition("{}")
    first = f".{joined.parts[0]}."
    for name in [each for each in places if each.startswith(before) and behind in each and first in each]:
        # All parts have the endings of the first.
        names = [name.replace(first, f".{part}.") for part in joined.parts]
        places[name.replace(first, f".{joined.disk}.")] = tuple(
            part for each in names for part in places.pop(each)
        )


def assemble(parts: Sequence[Part], read: Callable[[str], torch.Tensor]) -> torch.Tensor:
    """The tensor on disk that holds `parts`; `read` gives the class's tensor of a name. A copy."""
    pieces = [part.of(read(part.name)) for part in parts]
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0].detach().clone().contiguous()


def published(
    state: Mapping[str, torch.Tensor], family: Family, config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The tensors of `state`, by the names of transformers' class, as a published checkpoint holds them."""
    places = find_places({name: tuple(each.shape) for name, each in state.items()}, family, config)
    # Copies: a file cannot hold two tensors that share memory.
    return {name: assemble(parts, state.__getitem__).detach() for name, parts in places.items()}
