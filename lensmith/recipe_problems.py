"""What is wrong with a recipe, as people read it: file and line, key, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lensmith.errors import Problem
from lensmith.section import Unusable
from lensmith.yaml_file import YamlFile

# The keys of the section at a dotted path ("" for the top).
KnownKeys = Callable[[str], list[str]]


def recipe_problems(
    error: ValidationError, path: Path, file: YamlFile, settings: Sequence[str], known_keys: KnownKeys
) -> list[Problem]:
    """Everything that `error` says of the recipe in `file` at `path`, with `settings` laid over it."""
    problems: list[Problem] = []
    given = {text.partition("=")[0] for text in settings}
    for each in error.errors():
        dotted = ".".join(str(part) for part in each["loc"])
        line = file.lines.get(dotted) or file.lines.get(dotted.rpartition(".")[0])
        where = f"{path}:{line} {dotted}" if line else f"{path} {dotted}".rstrip()
        where = f"-s {dotted}" if dotted in given else where
        raised = each.get("ctx", {}).get("error")
        if isinstance(raised, Unusable):
            problems += [Problem(problem, where) for problem in raised.problems]
        else:
            problems.append(_problem(each["type"], dotted, each["msg"], each["input"], where, known_keys))
    return problems


def _problem(kind: str, dotted: str, message: str, given: Any, where: str, known_keys: KnownKeys) -> Problem:
    section, _, name = dotted.rpartition(".")
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(name, known_keys(section), n=1)
        return Problem("unknown key", where, f"did you mean {close[0]!r}?" if close else "remove it")
    if kind == "missing":
        return Problem("is missing", where, "add it")
    if kind.startswith("float") and isinstance(given, str):
        try:
            number = float(given)
        except ValueError:
            return Problem(f"{given!r} is text, a number is expected", where)
        mend = f"YAML reads 1e-4 as text: write {_with_point(number)}"
        return Problem(f"{given!r} is text, a number is expected", where, mend)
    if kind == "value_error":
        return Problem(message.removeprefix("Value error, "), where)
    return Problem(f"{message}, not {given!r}", where)


def _with_point(number: float) -> str:
    text = repr(number)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text
