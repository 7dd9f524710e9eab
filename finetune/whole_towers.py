"""Towers of which an adapter holds all weights: PEFT's copies of their modules, trained in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from peft.utils import ModulesToSaveWrapper
from torch import nn

from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.families.family import Family, Tower

_ACTIVE = "default"
_COPY, _ORIGINAL = f".modules_to_save.{_ACTIVE}", ".original_module"
_SHOWN = 10


def whole_modules(model: nn.Module, family: Family, towers: Sequence[Tower]) -> list[str]:
    """The full names of the smallest modules that hold all weights of `towers`, and none of another tower.

    Small ones: PEFT's copy stands in the place of each, and blocks stay what they are for whoever gathers or
    recomputes them. Raises InputError for a weight that lies in no such module.
    """
    found: list[str] = []
    problems: list[Problem] = []
    for name, module in model.named_modules():
        direct = [each for each, _ in module.named_parameters(name, recurse=False)]
        own = [each for each in direct if family.tower_of(each) in towers]
        if not own or any(name.startswith(f"{each}.") for each in found):
            continue
        if {family.tower_of(each) for each, _ in module.named_parameters(name)} <= set(towers):
            found.append(name)
        else:
            problems += [Problem("lies in no module of its towers alone", each) for each in own]
    if problems:
        raise InputError(f"a tower of this {family.title} cannot be held whole by an adapter", problems)
    return found


def cast_copies(model: nn.Module, dtype: torch.dtype) -> None:
    """Let the copies in a wrapped model train in `dtype`: PEFT leaves them in their original's."""
    for _, wrapper in _wrappers(model):
        wrapper.modules_to_save[_ACTIVE].to(dtype)


def check_whole(model: nn.Module, prefix: str, modules: Sequence[str]) -> None:
    """Raise IntegrityError unless a wrapped model trains all weights of `modules`, and beside its adapter and
    rows of new tokens no other weight. `prefix` stands before their names."""
    wanted = {
        name
        for name, _ in model.named_parameters()
        if any(name.startswith(f"{prefix}{each}{_COPY}.") for each in modules)
    }
    held = {name.removeprefix(prefix) for name, _ in _wrappers(model)}
    trained = {
        name
        for name, each in model.named_parameters()
        if each.requires_grad and ".lora_" not in name and ".trainable_tokens_delta." not in name
    }
    problems = [Problem("is not trained whole", each) for each in sorted(set(modules) - held)]
    problems += [Problem("is not trained", name) for name in sorted(wanted - trained)]
    problems += [Problem("is trained whole", name) for name in sorted(trained - wanted)]
    if problems:
        raise IntegrityError("other weights are trained whole than the recipe asks for", problems[:_SHOWN])


def named_as_class(name: str) -> str | None:
    """What a tensor of a wrapped model is called in its class; None for one of a copy."""
    return None if f"{_COPY}." in name else name.replace(f"{_ORIGINAL}.", ".")


def copies(model: nn.Module) -> dict[str, torch.Tensor]:
    """By its name in the class each weight, and buffer that is saved, of a copy."""
    return {
        f"{name}.{tensor}": value
        for name, wrapper in _wrappers(model)
        for tensor, value in wrapper.modules_to_save[_ACTIVE].state_dict().items()
    }


def _wrappers(model: nn.Module) -> Iterator[tuple[str, ModulesToSaveWrapper]]:
    return ((n, each) for n, each in model.named_modules() if isinstance(each, ModulesToSaveWrapper))
