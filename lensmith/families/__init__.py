"""The model families: one file each, facts as data. `get` is the only way in."""

from __future__ import annotations

import difflib

from lensmith.errors import InputError, Problem
from lensmith.families import deepseek_ocr2, gemma3, glm4v, glm4v_moe, molmo2, qwen3_vl, qwen3_vl_moe
from lensmith.families.family import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (qwen3_vl, qwen3_vl_moe, glm4v, glm4v_moe, gemma3, deepseek_ocr2, molmo2)
}


def get(name: str) -> Family:
    """The family called `name`. Raises InputError with the choices."""
    if name not in FAMILIES:
        raise InputError(
            f"no model family is called {name!r}", [Problem("unknown family", "family", nearest(name))]
        )
    return FAMILIES[name]


def nearest(name: str) -> str:
    """The mend for a name that no family has."""
    close = difflib.get_close_matches(name, FAMILIES, n=1)
    return f"did you mean {close[0]}?" if close else f"one of {', '.join(FAMILIES)}"
