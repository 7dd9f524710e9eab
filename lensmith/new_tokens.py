"""Strings that become single tokens: what of them can be judged from the recipe alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def string_problems(tokens: Sequence[str], markup: Iterable[str]) -> list[str]:
    """Everything that is wrong with `tokens` as they are written; `markup` is the family's own.

    Markup is refused in data, and stands for commands: a token that is some, or holds it, would be read in
    its place.
    """
    problems: list[str] = []
    known = tuple(markup)
    for place, token in enumerate(tokens):
        if not token.strip():
            problems.append(f"new_tokens[{place}] is empty")
            continue
        if token != token.strip():
            problems.append(f"{token!r} has white space around it: write {token.strip()!r}")
        if token in tokens[:place]:
            problems.append(f"{token!r} stands there twice")
        if other := in_the_way(token, known):
            problems.append(
                f"{token!r} begins or holds {other!r}, which the chat template gives a meaning to"
            )
    return problems


def in_the_way(token: str, others: Iterable[str]) -> str | None:
    """The first of `others` that begins with `token` or that `token` holds; None where none does."""
    return next((each for each in others if each.startswith(token) or each in token), None)


def learned_tokens(run: Mapping[str, Any]) -> dict[str, int]:
    """The new tokens of the run with this body and their ids, ascending: as a tokenizer takes them."""
    stated: dict[str, int] = run.get("new_tokens", {})
    # JSON objects are written in the order of their keys.
    return {token: number for number, token in sorted((number, token) for token, number in stated.items())}
