"""What PEFT saves in an adapter beside its matrices: modules that were trained whole, and biases."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.merging.adapter_config import rank_and_scale
from finetune.merging.change import Compute, Piece, add_scaled
from finetune.merging.late import torch
from finetune.merging.tensor_file import FLOATS, TensorFile
from lensmith.errors import Problem

PREFIX = "base_model.model."
SETTING = "modules_to_save"
# Of a module that LoRA adapts, the bias that it had before.
_WRAPPED, _LORA_BIAS = ".base_layer.bias", ".lora_B.bias"
_OTHERS = (".lora_", ".token_adapter.")


@dataclass(frozen=True)
class Whole:
    """A weight of the class that `tensor` of the adapter's file takes the place of or, with a `scale`, is
    added to (PEFT's `lora_bias`: scale * the bias of B)."""

    tensor: str
    scale: float | None = None

    def piece(self, weight: str, rows: int, file: TensorFile, before: int) -> Piece:
        """`rows` of the weight, seen as a matrix, from its row `before` on."""
        return Piece(weight, rows, functools.partial(self._start, file, before))

    def _start(self, file: TensorFile, before: int) -> Compute:
        def compute(stored: torch.Tensor, first: int) -> torch.Tensor:
            values = file.read_rows(self.tensor, before + first, len(stored)).to(torch.float32)
            return values if self.scale is None else add_scaled(stored, values, self.scale)

        return compute


def read_whole(file: TensorFile, config: Mapping[str, Any]) -> tuple[dict[str, Whole], list[Problem]]:
    """By name of each weight what `file` holds of it whole, as the adapter's config says, and what is wrong
    with it. Tensors that the config says nothing of are left to others."""
    modules: list[str] = list(config.get(SETTING) or [])
    found: dict[str, Whole] = {}
    problems: list[Problem] = []
    kept: set[str] = set()
    for name, entry in file.entries.items():
        inner = name.removeprefix(PREFIX)
        scale: float | None = None
        if inner.endswith(_LORA_BIAS) and config.get("lora_bias"):
            module = inner.removesuffix(_LORA_BIAS)
            weight, scale = f"{module}.bias", rank_and_scale(dict(config), module)[1]
        elif any(part in inner for part in _OTHERS):
            continue
        elif module := saved_module(inner, modules):
            weight = inner
            kept.add(module)
        elif biases_are_saved(config) and inner.endswith(".bias"):
            weight = inner.removesuffix(_WRAPPED) + ".bias" if inner.endswith(_WRAPPED) else inner
        else:
            continue
        if weight in found:
            problems.append(Problem(f"stands for {weight}, as another tensor does", name))
        elif entry.dtype not in FLOATS:
            problems.append(Problem(f"is {entry.dtype}, no floats", name))
        found[weight] = Whole(name, scale)
    lacking = [each for each in modules if not any(module.endswith(each) for module in kept)]
    problems += [Problem(f"{SETTING} names it, and no tensor is of it", each) for each in lacking]
    if config.get("lora_bias"):
        stated = {name.removesuffix(".weight") for name in file.entries if name.endswith(".lora_B.weight")}
        problems += [
            Problem("lora_bias is on, and it has none", name)
            for name in sorted(stated)
            if f"{name}.bias" not in file.entries
        ]
    return found, problems


def biases_are_saved(config: Mapping[str, Any]) -> bool:
    """Whether PEFT trained the base's own biases, of all modules or those that LoRA adapts."""
    return config.get("bias") not in (None, "none")


def saved_module(weight: str, modules: Sequence[str]) -> str | None:
    """The module that holds a weight and that `modules_to_save` names, by the end of its name as PEFT asks
    (`_set_trainable`); None where there is none."""
    parts = weight.split(".")
    for count in range(1, len(parts)):
        module = ".".join(parts[:count])
        if module.endswith(tuple(modules)):
            return module
    return None
