"""What PEFT's config says of an adapter: whether it can be merged, and each module's rank and scale."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError, Problem

# Settings that merging understands, or that do not change what the adapter computes. Every other one must be
# off: an unknown setting that is on may change the delta (replaced layers, shared matrices).
_UNDERSTOOD = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
}
_KINDS: dict[str, type] = {
    "rank_pattern": dict,
    "alpha_pattern": dict,
    "modules_to_save": list,
    "target_parameters": list,
    "trainable_token_indices": dict,
}
# Other initialisations (PiSSA, OLoRA, LoftQ, CorDA) change the base's own weights before training.
_INITS = (True, False, "gaussian", "orthogonal")


def rank_and_scale(config: dict[str, Any], module: str) -> tuple[int, float]:
    """Rank and scale of a module's delta: alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732).

    A pattern's key is a regular expression for the end of a module's name, the first that fits counts
    (PEFT's `get_pattern_key`).
    """
    rank = int(by_pattern(config.get("rank_pattern"), module, config["r"]))
    alpha = float(by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def by_pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """A module's value in `rank_pattern` or `alpha_pattern`, else the default."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} cannot be read", [Problem(f"is no JSON: {error}")]) from error
    if not isinstance(config, dict):
        raise InputError(f"{path} cannot be read", [Problem("is no JSON object")])
    return config


def _odd_values(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that merging reads and whose value is not of their kind, and what is wrong with it."""
    for name, kind in _KINDS.items():
        value = config.get(name)
        if value is not None and not isinstance(value, kind):
            yield name, f"is {json.dumps(value)}, {kind.__name__} is expected"
        elif kind is list and not all(isinstance(each, str) for each in value or ()):
            yield name, f"is {json.dumps(value)}, not a list of names"
    for plain, of_modules, right, words in (
        ("r", "rank_pattern", _is_rank, "a whole number above 0"),
        ("lora_alpha", "alpha_pattern", _is_alpha, "a number above 0"),
    ):
        if plain in config and not right(config[plain]):
            yield plain, f"is {json.dumps(config[plain])}, not {words}"
        patterns = config.get(of_modules)
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            if not right(value):
                yield f"{of_modules} {pattern}", f"is {json.dumps(value)}, not {words}"
            if (wrong := _not_a_pattern(pattern)) is not None:
                yield f"{of_modules} {pattern}", f"is no regular expression: {wrong}"


def _is_rank(value: object) -> bool:
    return type(value) is int and value > 0


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 < value < math.inf


def _not_a_pattern(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None


def read_config(root: Path, *, experts: bool) -> dict[str, Any]:
    """The settings of the adapter in `root`; `experts`: whether its family has some, which may be adapted.

    Raises InputError where a file is missing or cannot be read, for every setting that is not of its kind or
    that this version does not merge, and for one that changed the base before training.
    """
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (root / name).is_file()]
    if missing:
        raise InputError(f"{root} holds no adapter", [Problem("is missing", name) for name in missing])
    where = str(root / ADAPTER_CONFIG)
    config = _read_json(root / ADAPTER_CONFIG)
    if wrong := [Problem(what, f"{where} {name}") for name, what in _odd_values(config)]:
        raise InputError(f"the adapter in {root} cannot be merged", wrong)
    understood = _UNDERSTOOD | ({"target_parameters"} if experts else set())
    mend = "train without it, or merge with the tool that trained it"
    problems = [
        Problem(f"{name} = {json.dumps(value)} is not merged by this version", where, mend)
        for name, value in sorted(config.items())
        if name not in understood and value not in (None, False, "none", [], {})
    ]
    if config.get("peft_type") != "LORA":
        problems.append(Problem(f"peft_type is {config.get('peft_type')!r}, LORA is expected", where))
    if config.get("init_lora_weights", True) not in _INITS:
        problems.append(
            Problem(
                f"init_lora_weights = {config['init_lora_weights']!r} changed the base before training",
                where,
                "save the adapter converted to plain LoRA",
            )
        )
    problems += [Problem(f"{name} is missing", where) for name in ("r", "lora_alpha") if name not in config]
    if problems:
        raise InputError(f"the adapter in {root} cannot be merged", problems)
    return config
