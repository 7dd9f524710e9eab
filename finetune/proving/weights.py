"""Every merged tensor against its definition, bit by bit: on disk, read through the safetensors library, and
as transformers loads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import ParamWrapper
from peft.tuners.lora.dora import DoraLinearLayer
from peft.utils.integrations import dequantize_module_weight, get_bnb_param_type
from safetensors import SafetensorError, safe_open
from torch import nn

from finetune.adapted import stored_adapter
from finetune.layout import Part as LayoutPart
from finetune.layout import Places, Shapes
from finetune.new_rows import trained_rows
from finetune.proving.experts import ExpertDeltas, FusedDeltas
from finetune.proving.part import Part, named
from finetune.whole_towers import copies, named_as_class
from lensmith.errors import IntegrityError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# By bytes of an element: compared as these, several times as fast as byte by byte.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

# By name what a weight becomes, given the base's.
Definition = dict[str, Callable[[torch.Tensor], torch.Tensor]]


@dataclass(frozen=True)
class Stored:
    """Where each tensor of a checkpoint lies: file name by tensor name."""

    root: Path
    place: dict[str, str]

    def read(self, name: str) -> torch.Tensor:
        with safe_open(self.root / self.place[name], "pt") as file:
            return file.get_tensor(name)

    def shape(self, name: str) -> list[int]:
        with safe_open(self.root / self.place[name], "pt") as file:
            return file.get_slice(name).get_shape()

    def is_of(self, name: str, dtype: str) -> bool:
        """Whether a tensor is stored in this dtype ("bfloat16")."""
        with safe_open(self.root / self.place[name], "pt") as file:
            return file.get_slice(name).get_dtype() == _STORED[dtype]


def stored(root: Path) -> Stored:
    """The tensors of the checkpoint in `root`. Raises IntegrityError where a file is missing or damaged."""
    place: dict[str, str] = {}
    indexed = (root / _INDEX).is_file()
    index = json.loads((root / _INDEX).read_bytes()) if indexed else {}
    size = 0
    for name in sorted(set(index["weight_map"].values())) if indexed else [_SINGLE]:
        try:
            with safe_open(root / name, "pt") as file:
                place.update(dict.fromkeys(file.keys(), name))
                size += sum(file.get_tensor(each).nbytes for each in file.keys()) if indexed else 0  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise IntegrityError(f"{root / name} cannot be read: {error}") from error
    if indexed and (index["weight_map"] != place or index["metadata"]["total_size"] != size):
        raise IntegrityError(f"the index of {root} does not fit its shards")
    return Stored(root, place)


def adapter_part(trained: nn.Module, run: Path) -> Part:
    """Every tensor of the adapter's file belongs to one LoRA matrix, DoRA's magnitude, one weight's rows of
    new tokens or one weight that is held whole, in memory, and none is left over.

    `trained`: the base with its adapter, unmerged. Tensors are matched by the layer's own name.
    """
    waiting = stored_adapter(run)
    total = len(waiting)
    findings: list[str] = []
    modules = 0
    for name, layer in trained.named_modules():
        if not isinstance(layer, LoraLinear | ParamWrapper):
            continue
        modules += 1
        tensors = {"A.weight": layer.lora_A, "B.weight": layer.lora_B}
        if layer.use_dora["default"]:
            tensors["magnitude_vector"] = layer.lora_magnitude_vector
        for part, held in tensors.items():
            key = f"base_model.model.{name}.lora_{part}"
            value = waiting.pop(key, None)
            computed_with = held["default"].get_parameter("weight").float().cpu()
            if value is None or not torch.equal(value.float(), computed_with):
                findings.append(f"{key} is not what the model computes with")
    for name, (_, rows) in trained_rows(trained).items():
        modules += 1
        key = f"base_model.model.{name}.token_adapter.trainable_tokens_delta"
        value = waiting.pop(key, None)
        if value is None or not torch.equal(value.float(), rows.detach().float().cpu()):
            findings.append(f"{key} is not what the model computes with")
    for name, held in copies(trained).items():
        modules += 1
        key = f"base_model.model.{name}"
        value = waiting.pop(key, None)
        # Rounded to the model's dtype, in which it computes.
        if value is None or not torch.equal(value.to(held.dtype), held.cpu()):
            findings.append(f"{key} is not what the model computes with")
    findings += named("adapter tensors belong to no layer", sorted(waiting))
    return Part({"tensors": total, "modules": modules, "used_once": total - len(waiting)}, findings)


def lora_definition(
    trained: nn.Module, experts: ExpertDeltas, in_4_bits: nn.Module | None = None
) -> Definition:
    """By the class's weight the definition of its merged value: base in float32 plus PEFT's own delta, for
    DoRA each row scaled from PEFT's own norm to its magnitude, rounded once. experts: those of `trained`.

    in_4_bits: the model of a base that was trained on in 4 bits, held so: its dequantised weights take the
    place of the base's, of linears without a delta too.
    """
    starts = _dequantized(in_4_bits) if in_4_bits is not None else {}

    def merged(name: str, layer: LoraLinear) -> Callable[[torch.Tensor], torch.Tensor]:
        def value(base: torch.Tensor) -> torch.Tensor:
            return merged_linear(layer, starts[name]() if name in starts else base.float()).to(base.dtype)

        return value

    def fused(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda base: (base.float() + experts.of(name)).to(base.dtype)

    alone = {f"{name}.weight": _alone(start) for name, start in starts.items()}
    linears = {f"{name}.weight": merged(name, layer) for name, layer in _layers(trained)}
    return alone | linears | {name: fused(name) for name in experts.layers}


def adapter_change(trained: nn.Module) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """By the class's weight what gives, of the base's in float32, by how much the adapter changes it: PEFT's
    own delta; for DoRA what the base becomes less the base."""
    return {f"{name}.weight": functools.partial(linear_change, layer) for name, layer in _layers(trained)}


def linear_change(layer: LoraLinear, start: torch.Tensor) -> torch.Tensor:
    """float32: by how much `layer` changes `start`, the float32 weight that it adapts: PEFT's own delta,
    whatever the start; for DoRA what that becomes less what it is."""
    if layer.use_dora["default"]:
        return merged_linear(layer, start) - start
    return _delta(layer)


def _delta(layer: LoraLinear) -> torch.Tensor:
    return layer.get_delta_weight("default").detach().float().cpu()


def merged_linear(layer: LoraLinear, start: torch.Tensor) -> torch.Tensor:
    """float32: `start`, the float32 weight that `layer` adapts, with PEFT's own delta; for DoRA each row
    scaled from PEFT's own norm to its magnitude."""
    delta = _delta(layer)
    changed = start + delta
    if layer.use_dora["default"]:
        dora = layer.lora_magnitude_vector["default"]
        if not isinstance(dora, DoraLinearLayer):
            raise TypeError(f"{type(dora).__name__} is not the DoRA of a linear layer")
        norm = dora.get_weight_norm(start, delta, scaling=1)
        changed = (dora.weight.detach().float().cpu() / norm).view(-1, 1) * changed
    return changed


def row_definition(trained: nn.Module, tied: Collection[str]) -> Definition:
    """By the class's weight that has rows of new tokens the definition of its merged value: the base's with
    these rows in their places, rounded once. `tied`: names under which the embeddings are held once more."""

    def placed(numbers: list[int], rows: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        def value(base: torch.Tensor) -> torch.Tensor:
            chosen = torch.zeros(len(base), dtype=torch.bool)
            chosen[numbers] = True
            whole = torch.zeros_like(base)
            whole[numbers] = rows.detach().float().cpu().to(base.dtype)
            return torch.where(chosen[:, None], whole, base)

        return value

    values = {f"{name}.weight": placed(*each) for name, each in trained_rows(trained).items()}
    return values | {name: each for name in tied for each in values.values()}


def whole_definition(trained: nn.Module, run: Path) -> Definition:
    """By the class's weight the definition of one that the adapter in `run` holds whole: its value in the
    file, rounded once. trained: the base with that adapter, as PEFT lays it out."""
    saved = stored_adapter(run)

    def value(tensor: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda base: tensor.to(base.dtype)

    return {name: value(saved[f"base_model.model.{name}"]) for name in copies(trained)}


def _alone(start: Callable[[], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda base: start().to(base.dtype)


def _dequantized(model: nn.Module) -> dict[str, Callable[[], torch.Tensor]]:
    """By its name in the class, what gives PEFT's own dequantised weight of a linear in 4 bits (float32)."""

    def reader(linear: nn.Module) -> Callable[[], torch.Tensor]:
        return lambda: dequantize_module_weight(linear).detach().float().cpu()

    return {
        name.removesuffix(".base_layer"): reader(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and get_bnb_param_type(module.get_parameter("weight")) == "4bit"
    }


def on_disk(definition: Definition, experts: FusedDeltas, places: Places, shapes: Shapes) -> Definition:
    """By tensor on disk the definition of the weights that lie in it; a weight that has no place keeps its
    name. Of a fused parameter a tensor may hold one expert, or some of its rows."""
    found: Definition = {}

    def merged(part: LayoutPart, piece: torch.Tensor) -> torch.Tensor:
        if part.name in experts.names:
            return (piece.float() + part.of(experts.of(part.name))).to(piece.dtype)
        return definition.get(part.name, _as_it_is)(piece)

    def joined(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        parts = places[name]

        def value(old: torch.Tensor) -> torch.Tensor:
            pieces = old.split([part.shape(shapes[part.name])[0] for part in parts])
            return torch.cat([merged(part, piece) for part, piece in zip(parts, pieces, strict=True)])

        return value

    placed: set[str] = set()
    for name, parts in places.items():
        if here := {part.name for part in parts} & definition.keys():
            found[name] = joined(name)
            placed |= here
    return found | {name: value for name, value in definition.items() if name not in placed}


def _as_it_is(old: torch.Tensor) -> torch.Tensor:
    return old


def full_definition(run: Path, base: Stored) -> Definition:
    """By tensor on disk the definition for method full: the run's value, rounded to the base's dtype.

    One that the run holds in another shape has none: `loaded_part` judges it.
    """
    trained = stored(run)
    # A tied head that only the base stores is the run's embedding.
    tied = [name for name in trained.place if name.endswith("embed_tokens.weight")]

    def value(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        source = name if name in trained.place else tied[0]
        return lambda old: trained.read(source).to(old.dtype)

    heads = {"lm_head.weight"} if tied else set()
    return {
        name: value(name)
        for name in base.place
        if name in heads or (name in trained.place and trained.shape(name) == base.shape(name))
    }


def weights_part(
    base: Stored, model: Stored, definition: Definition, elsewhere: Collection[str] = ()
) -> Part:
    """Every tensor on disk of `model` equals its definition in every bit; those without one equal the base's.

    elsewhere: names of those that `loaded_part` judges alone.
    """
    findings = named("tensors of the base are missing", sorted(base.place.keys() - model.place.keys()))
    findings += named("tensors are not in the base", sorted(model.place.keys() - base.place.keys()))
    findings += named("trained tensors are not in the base", sorted(definition.keys() - base.place.keys()))
    common = sorted(base.place.keys() & model.place.keys())
    findings += named("tensors lie in another shard", [n for n in common if base.place[n] != model.place[n]])
    wrong: list[str] = []
    touched: list[str] = []
    changed = 0
    for name in common:
        old, new = base.read(name), model.read(name)
        changed += not same_bits(old, new)
        if name in definition:
            if not same_bits(definition[name](old), new):
                wrong.append(name)
        elif name not in elsewhere and not same_bits(old, new):
            touched.append(name)
    findings += named("merged tensors differ from the definition", wrong)
    findings += named("tensors that were not trained differ from the base", touched)
    if not changed:
        findings.append("no tensor differs from the base: nothing was merged")
    facts = {
        "tensors": len(common),
        "merged": len(definition),
        "bit_equal": len(common) - len(wrong) - len(touched),
        "changed": changed,
    }
    return Part(facts, findings)


def loaded_part(trained: nn.Module, merged: nn.Module, definition: Definition, odd: Collection[str]) -> Part:
    """Every weight that transformers loads of the merged model equals, in every bit, its definition on what
    it loads of the base; those without one equal what was trained.

    Says, without the map that merging went by, that each change reached the weight it was trained for. odd:
    weights stored in another dtype than the model's, so rounded in loading: `weights_part` alone judges them.
    """
    before = {
        plain.replace(".token_adapter", "").replace(".base_layer", ""): weight
        for name, weight in trained.state_dict().items()
        if ".lora_" not in name and ".trainable_tokens_" not in name and (plain := named_as_class(name))
    }
    after = merged.state_dict()
    findings = named("weights are not the trained model's", sorted(before.keys() ^ after.keys()))
    common = sorted(before.keys() & after.keys() - set(odd))
    wrong = [
        name
        for name in common
        if not same_bits(definition.get(name, _as_it_is)(before[name].cpu()), after[name].cpu())
    ]
    findings += named("weights are not what was trained, once loaded", wrong)
    return Part({"weights": len(common), "bit_equal": len(common) - len(wrong)}, findings)


def _layers(trained: nn.Module) -> list[tuple[str, LoraLinear]]:
    return [(name, module) for name, module in trained.named_modules() if isinstance(module, LoraLinear)]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether dtype, shape and every bit are the same."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = _BITS[one.element_size()]
    return torch.equal(*(each.contiguous().reshape(-1).view(bits) for each in (one, other)))
