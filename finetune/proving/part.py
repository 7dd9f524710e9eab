"""What a part of a proof found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_SHOWN = 8


@dataclass(frozen=True)
class Part:
    """`findings`: what is wrong, a sentence each, none where the part passed; `facts`: what was measured."""

    facts: dict[str, Any]
    findings: list[str] = field(default_factory=list)


def named(what: str, names: list[str]) -> list[str]:
    """One finding for `names`, the first few of them spelled out; none for no names."""
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"]
