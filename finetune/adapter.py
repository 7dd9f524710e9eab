"""What is trained: LoRA on exactly the linears that the family states, whole towers, or both; the rest is
frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from finetune.lora import adapter_layers, check_layers, lora_config
from finetune.new_rows import check_rows, compute_apart, row_modules, start_rows
from finetune.new_tokens import NONE, NewTokens
from finetune.peft_names import named_in_full
from finetune.whole_towers import cast_copies, check_whole, whole_modules
from lensmith.errors import InputError, Problem
from lensmith.families.family import TOWERS, Family, Tower
from lensmith.recipe import Recipe
from lensmith.train_settings import LoraPart

_PEFT_PREFIX = "base_model.model."
_SHOWN = 5


@dataclass(frozen=True)
class Trained:
    """The model to train.

    adapted: how many linears of each tower, and fused parameters of the experts, carry an adapter.
    parameters: how many parameters train, by tower.
    """

    model: PreTrainedModel | PeftModel
    adapted: dict[LoraPart, int]
    parameters: dict[Tower, int]


def adapter_targets(model: PreTrainedModel, recipe: Recipe) -> dict[LoraPart, list[str]]:
    """By adapted tower the full name of every linear that gets an adapter, and of the experts' parameters.

    Raises InputError where the family states a name that the
    model has no linear for, or the model has a linear in an adapted tower that the family does not state:
    either way fewer modules would be adapted than the recipe asks for. So for experts, which are the
    parameters of three dimensions in the language model.
    """
    family = recipe.model_family
    # As the class holds it: a file may leave out defaults, or say them in another way.
    config = model.config.to_dict()
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    targets: dict[LoraPart, list[str]] = {}
    problems: list[Problem] = []
    for tower in recipe.train.towers.in_mode("adapt"):
        stated = family.expected_linears(config, tower)
        found = {name for name in linears if family.tower_of(name) == tower}
        # The output head is in the language tower but never adapted: engines cannot apply that.
        found -= {name for name in found if "." not in name}
        problems += _differences(tower, "linear", set(stated), found)
        targets[tower] = stated
    if recipe.train.lora.experts is not None and family.experts is not None:
        targets["experts"] = family.experts.fused(config)
        fused = {name for name, each in model.named_parameters() if len(_shape(each)) == 3}
        found = {name for name in fused if family.tower_of(name) == "language"}
        problems += _differences("experts", "parameter", set(targets["experts"]), found)
    if problems:
        raise InputError(f"LoRA does not fit this {family.title}", problems)
    return targets


def _shape(parameter: nn.Parameter) -> torch.Size:
    """The whole parameter's: under ZeRO-3 it is empty, and DeepSpeed knows better."""
    return vars(parameter).get("ds_shape", parameter.shape)


def _differences(part: LoraPart, kind: str, stated: set[str], found: set[str]) -> list[Problem]:
    problems: list[Problem] = []
    for names, what in (
        (stated - found, f"match no {kind} of the model"),
        (found - stated, f"are {kind}s that the family does not state"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            problems.append(Problem(f"{len(names)} of {len(stated)} names {what}: {shown}", part))
    return problems


def choose_trained(
    model: PreTrainedModel, recipe: Recipe, *, half_adapter: bool = False, new: NewTokens = NONE
) -> Trained:
    """Freeze `model` but for what the recipe trains; for methods lora and qlora, add the adapter.

    A tower that these train whole is trained in a copy that the adapter holds. Works on the meta device too.
    `half_adapter` keeps a bfloat16 model's adapter in bfloat16: ZeRO-3 cannot gather parameters of two dtypes
    together (DeepSpeed#8072); otherwise the adapter is float32, such copies too. `new`: the
    recipe's new tokens in the checkpoint's vocabulary, whose rows start from the mean of their pieces'.
    Raises InputError where LoRA would match nothing or fewer modules than the family states, and for experts
    that may have been loaded the wrong way round; IntegrityError where the layers do not compute what the
    recipe asks for.
    """
    family = recipe.model_family
    _check_told_apart(model, family)
    if list(new.ids) != recipe.train.new_tokens:
        raise ValueError(f"the recipe's new tokens are {recipe.train.new_tokens}, not {list(new.ids)}")
    if new:
        start_rows(model, new)
    if recipe.train.method == "full":
        trained = recipe.train.towers.in_mode("train")
        # A router that moves with few examples sends tokens to other experts: all come from the base's.
        routers = set(family.experts.routers(model.config.to_dict())) if family.experts else set()
        for name, parameter in model.named_parameters():
            parameter.requires_grad = family.tower_of(name) in trained and name not in routers
        return Trained(model, {}, count_trained(model, family))
    targets = adapter_targets(model, recipe)
    modules = row_modules(model)
    rows = {name: list(new.ids.values()) for name in modules} if new else None
    whole = whole_modules(model, family, recipe.train.whole_beside)
    settings = lora_config(recipe.train.lora, targets, rows, whole)
    on_meta = next(model.parameters()).is_meta
    with named_in_full(model), _known_form(model, recipe, on_meta):
        wrapped = get_peft_model(
            model, settings, autocast_adapter_dtype=not half_adapter, low_cpu_mem_usage=on_meta
        )
    if not half_adapter:
        cast_copies(wrapped, torch.float32)
    if on_meta and half_adapter:
        # Without memory PEFT leaves an adapter in the dtype in which it was made.
        for parameter in wrapped.parameters():
            parameter.data = parameter.data.to(model.dtype)
    adapted = check_adapted(wrapped, targets)
    check_layers(wrapped, _PEFT_PREFIX, recipe.train.lora, targets)
    check_whole(wrapped, _PEFT_PREFIX, whole)
    check_rows(wrapped, _PEFT_PREFIX, modules, new, tied=len(modules) == 1)
    compute_apart(wrapped)
    return Trained(wrapped, adapted, count_trained(wrapped, family))


def _check_told_apart(model: PreTrainedModel, family: Family) -> None:
    """Refuse square experts of a family that publishes them transposed: transformers 5.20 turns them by their
    shape (core_model_loading.py, `Transpose` with `check_dims`), engines by what the family is known for."""
    if family.experts is None or family.experts.stored != "transposed":
        return
    parameters = dict(model.named_parameters())
    fused = [(name, parameters[name]) for name in family.experts.fused(model.config.to_dict())]
    square = [name for name, each in fused if _shape(each)[1] == _shape(each)[2]]
    if square:
        problem = "is square: transformers would read it the wrong way round"
        mend = "use a checkpoint whose experts are not square, as the published ones"
        raise InputError(f"this {family.title} cannot be trained", [Problem(problem, square[0], mend)])


def _known_form(model: PreTrainedModel, recipe: Recipe, on_meta: bool) -> AbstractContextManager[None]:
    if recipe.train.method != "qlora" or on_meta:
        return nullcontext()
    # Imported only where it is used: bitsandbytes takes seconds.
    from finetune.four_bit import known_in_four_bits

    return known_in_four_bits(model)


def check_adapted(model: nn.Module, targets: Mapping[LoraPart, Sequence[str]]) -> dict[LoraPart, int]:
    """How many linears of each tower, and parameters of the experts, carry an adapter in a wrapped model.

    Raises InputError where they are not exactly `targets`, or there are none.
    """
    carrying = {name.removeprefix(_PEFT_PREFIX) for name in adapter_layers(model)}
    wanted = {name for names in targets.values() for name in names}
    if not carrying or carrying != wanted:
        where = ", ".join(sorted(carrying ^ wanted)[:_SHOWN]) or "no target at all"
        raise InputError(
            f"{len(carrying)} linears carry an adapter, the family states {len(wanted)}",
            [Problem("carries an adapter and should not, or the other way round", where)],
        )
    return {part: len(names) for part, names in targets.items()}


def module_name(name: str) -> str:
    """A module's or parameter's name in the model before it was wrapped."""
    return name.removeprefix(_PEFT_PREFIX)


def count_trained(model: nn.Module, family: Family) -> dict[Tower, int]:
    """Trainable parameters by tower. A weight that two modules share counts once."""
    counts: dict[Tower, int] = dict.fromkeys(TOWERS, 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[family.tower_of(module_name(name))] += parameter.numel()
    return counts
