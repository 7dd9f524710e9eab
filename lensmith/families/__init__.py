"""The model families: one file each, facts as data. `get` is the only way in."""

from __future__ import annotations

import difflib

from lensmith.errors import InputError, Problem
from lensmith.families import glm4v, qwen3_vl
from lensmith.families.family import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (qwen3_vl.FAMILY, glm4v.FAMILY)}


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
