"""A checkpoint's context: how many tokens a sequence may have, as vLLM counts them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lensmith.errors import Problem
from lensmith.families.family import Family
from lensmith.recipe import Recipe

# vLLM 0.32 (config/model.py, _get_and_verify_max_len): rope types whose factor stands in the stated number.
COUNTED_IN = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def context_of(config: Mapping[str, Any], family: Family) -> int:
    """The most tokens of a sequence under this config.json; the family's where it states none."""
    text: Mapping[str, Any] = config.get("text_config", {})
    stated = text.get("max_position_embeddings")
    if stated is None:
        return family.context
    factor = 1.0
    if not family.context_scaled:
        for rope in _ropes(text):
            if rope.get("rope_type", rope.get("type")) not in COUNTED_IN:
                factor = rope.get("factor") or factor
    return int(stated * factor)


def _ropes(text: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """How positions are turned and scaled: once, or for each type of layer."""
    stated = text.get("rope_parameters") or text.get("rope_scaling") or {}
    by_layer = [each for each in stated.values() if isinstance(each, Mapping)]
    yield from by_layer or [stated]


def context_problems(recipe: Recipe, checkpoint: Path) -> list[Problem]:
    """What the engine would refuse to start with: more tokens than the checkpoint has positions for."""
    return _beyond(recipe, checkpoint, "serve.max_model_len", recipe.serve.max_model_len)


def length_problems(recipe: Recipe, checkpoint: Path) -> list[Problem]:
    """Training rows that may have more tokens than the checkpoint has positions for.

    Of packs it asks nothing: each row in one has positions of its own, from the first one on.
    """
    return _beyond(recipe, checkpoint, "train.max_length", recipe.train.max_length)


def _beyond(recipe: Recipe, checkpoint: Path, key: str, asked: int) -> list[Problem]:
    config = json.loads((checkpoint / "config.json").read_bytes())
    most = context_of(config, recipe.model_family)
    if asked <= most:
        return []
    what = f"{asked:,} tokens, {checkpoint.name} has positions for {most:,} (max_position_embeddings)"
    return [Problem(what, key, f"lower it to {most} at most")]
