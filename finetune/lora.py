"""The recipe's LoRA as PEFT takes it, and whether that is what a model carries and a checkpoint holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer, ParamWrapper
from safetensors import safe_open
from torch import nn

from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import IntegrityError, Problem
from lensmith.train_settings import Lora, LoraPart

_ACTIVE = "default"
_WRAPPED = ".base_layer"
_SHOWN = 10
# Lists, whose order PEFT may change; None where there is none.
_LISTS = ("target_parameters", "modules_to_save")
# What decides which weights an adapter has and by how much it changes the base's.
_DECIDING = (
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "lora_dropout",
    "trainable_token_indices",
)


def lora_config(
    lora: Lora,
    targets: Mapping[LoraPart, Sequence[str]],
    rows: Mapping[str, list[int]] | None = None,
    whole: Sequence[str] = (),
) -> LoraConfig:
    """PEFT's settings for an adapter on `targets`: the full names of linears by tower, and of experts.

    rows: by full name of an embedding, or a head of its own, the rows that are trained whole. whole: the full
    names of modules that are. A part that differs has a pattern for each of its names, which fits that whole
    name and no other.
    """
    ranks: dict[str, int] = {}
    alphas: dict[str, int | float] = {}
    for part, names in targets.items():
        if lora.rank_of(part) != lora.rank:
            ranks |= {_exactly(name): lora.rank_of(part) for name in names}
        if lora.alpha_of(part) != lora.alpha:
            alphas |= {_exactly(name): _number(lora.alpha_of(part)) for name in names}
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        # PEFT itself also takes fractions.
        lora_alpha=_number(lora.alpha),  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        rank_pattern=ranks,
        alpha_pattern=alphas,
        target_modules=[name for part, names in targets.items() if part != "experts" for name in names],
        target_parameters=list(targets.get("experts", ())) or None,
        # PEFT ties a tied head's rows to the embeddings' by itself.
        trainable_token_indices=dict(rows) if rows else None,
        modules_to_save=list(whole) or None,
    )


def adapter_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """Every layer of an adapter by the full name of what it adapts: a linear, or a parameter.

    PEFT wraps the first parameter of a module, then that wrapper for the next one, and so on.
    """
    layers: dict[str, LoraLayer] = {}
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            while name.endswith(_WRAPPED):
                name = name.removesuffix(_WRAPPED)
            layers[f"{name}.{module.parameter_name}"] = module
        elif isinstance(module, LoraLayer):
            layers[name] = module
    return layers


def _exactly(module: str) -> str:
    # PEFT, vLLM and our merge put `(.*\.)?(` before a pattern: it would fit the end of a longer name too.
    return f"^{re.escape(module)}"


def _number(alpha: float) -> int | float:
    # Engines read it as an integer.
    return int(alpha) if alpha.is_integer() else alpha


def check_layers(
    model: nn.Module, prefix: str, lora: Lora, targets: Mapping[LoraPart, Sequence[str]]
) -> None:
    """Raise IntegrityError where a layer of a wrapped model does not compute what the recipe asks for.

    `prefix` stands before the targets' names in `model`. A setting that PEFT drops or reads otherwise would
    else train another adapter in silence.
    """
    layers = adapter_layers(model)
    problems: list[Problem] = []
    for part, names in targets.items():
        asked = {
            "rank": lora.rank_of(part),
            "scale": lora.scale_of(part),
            "magnitude": lora.variant == "dora",
            "dropout": lora.dropout,
        }
        for name in names:
            found = _computed(layers[prefix + name])
            problems += [
                Problem(f"{what} is {found[what]}, the recipe asks for {value}", name)
                for what, value in asked.items()
                if not math.isclose(found[what], value)
            ]
    if problems:
        raise IntegrityError("the adapter is not the one that the recipe asks for", problems[:_SHOWN])


def _computed(layer: LoraLayer) -> dict[str, float]:
    dropout = layer.lora_dropout[_ACTIVE]
    # The A of a fused parameter holds all experts', one below the other.
    experts = layer.num_experts if isinstance(layer, ParamWrapper) else 1
    return {
        "rank": layer.lora_A[_ACTIVE].get_parameter("weight").shape[0] / experts,
        "scale": layer.scaling[_ACTIVE],
        "magnitude": _ACTIVE in layer.lora_magnitude_vector,
        "dropout": dropout.p if isinstance(dropout, nn.Dropout) else 0.0,
    }


def check_saved(checkpoint: Path, shape: nn.Module) -> None:
    """Raise IntegrityError where a checkpoint does not hold the adapter of `shape`: its tensors by name and
    shape, and the settings that decide what they do.

    `shape`: a PeftModel, on the meta device too. Nothing is asked of a model that has no adapter.
    """
    if not isinstance(shape, PeftModel):
        return
    # Other versions of PEFT leave out what they do not know: then it is as here by default.
    stated: dict[str, Any] = LoraConfig().to_dict() | json.loads((checkpoint / ADAPTER_CONFIG).read_bytes())
    asked = shape.peft_config[_ACTIVE].to_dict()
    problems = [
        Problem(f"{name} is {stated.get(name)!r}, {asked[name]!r} was trained", ADAPTER_CONFIG)
        for name in _DECIDING
        if stated.get(name) != asked[name]
    ]
    problems += [
        Problem(f"{name} are not those that were trained", ADAPTER_CONFIG)
        for name in _LISTS
        if sorted(stated.get(name) or []) != sorted(asked[name] or [])
    ]
    trained = get_peft_model_state_dict(shape, save_embedding_layers=False)
    with safe_open(checkpoint / ADAPTER_WEIGHTS, "pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    wanted = {name: tuple(tensor.shape) for name, tensor in trained.items()}
    problems += [
        Problem(f"is {stored.get(name, 'not there')}, {wanted.get(name, 'nothing')} was trained", name)
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]
    if problems:
        raise IntegrityError(
            f"the adapter in {checkpoint} is not the one that was trained", problems[:_SHOWN]
        )
