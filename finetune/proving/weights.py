"""Every merged tensor against its definition, bit by bit, read through the safetensors library."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.dora import DoraLinearLayer
from safetensors import SafetensorError, safe_open
from torch import nn

from finetune.adapted import stored_adapter
from finetune.proving.part import Part, named
from lensmith.errors import IntegrityError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Stored:
    """Where each tensor of a checkpoint lies: file name by tensor name."""

    root: Path
    place: dict[str, str]

    def read(self, name: str) -> torch.Tensor:
        with safe_open(self.root / self.place[name], "pt") as file:
            return file.get_tensor(name)


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
    """Every tensor of the adapter's file belongs to one LoRA matrix, or DoRA's magnitude, in memory, and none
    is left over.

    `trained`: the base with its adapter, unmerged. Tensors are matched by the layer's own name.
    """
    waiting = stored_adapter(run)
    total = len(waiting)
    findings: list[str] = []
    modules = 0
    for name, layer in _layers(trained):
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
    findings += named("adapter tensors belong to no layer", sorted(waiting))
    return Part({"tensors": total, "modules": modules, "used_once": total - len(waiting)}, findings)


def lora_definition(trained: nn.Module) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """By weight the definition of its merged value: base in float32 plus PEFT's own delta, for DoRA each row
    scaled from PEFT's own norm to its magnitude, rounded once."""

    def merged(layer: LoraLinear) -> Callable[[torch.Tensor], torch.Tensor]:
        def value(base: torch.Tensor) -> torch.Tensor:
            delta = layer.get_delta_weight("default").detach().float().cpu()
            changed = base.float() + delta
            if layer.use_dora["default"]:
                dora = layer.lora_magnitude_vector["default"]
                if not isinstance(dora, DoraLinearLayer):
                    raise TypeError(f"{type(dora).__name__} is not the DoRA of a linear layer")
                norm = dora.get_weight_norm(base.float(), delta, scaling=1)
                changed = (dora.weight.detach().float().cpu() / norm).view(-1, 1) * changed
            return changed.to(base.dtype)

        return value

    return {f"{name}.weight": merged(layer) for name, layer in _layers(trained)}


def full_definition(run: Path, base: Stored) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """By weight the definition for method full: the run's value, rounded to the base's dtype."""
    trained = stored(run)
    # A tied head that only the base stores is the run's embedding.
    tied = [name for name in trained.place if name.endswith("embed_tokens.weight")]

    def value(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        source = name if name in trained.place else tied[0]
        return lambda old: trained.read(source).to(old.dtype)

    heads = {"lm_head.weight"} if tied else set()
    return {name: value(name) for name in base.place if name in trained.place or name in heads}


def weights_part(
    base: Stored, model: Stored, definition: dict[str, Callable[[torch.Tensor], torch.Tensor]]
) -> Part:
    """Every tensor of `model` equals its definition in every bit; those without one equal the base's."""
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
        changed += not _same_bits(old, new)
        if name in definition:
            if not _same_bits(definition[name](old), new):
                wrong.append(name)
        elif not _same_bits(old, new):
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


def _layers(trained: nn.Module) -> list[tuple[str, LoraLinear]]:
    return [(name, module) for name, module in trained.named_modules() if isinstance(module, LoraLinear)]


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)))
