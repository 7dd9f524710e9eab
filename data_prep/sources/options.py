"""What the options of several readers share: their types, and the errors that name a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from lensmith.errors import InputError, Problem
from lensmith.section import Section

SectionKind = TypeVar("SectionKind", bound=Section)
# YAML has lists, no tuples.
Names = Annotated[tuple[str, ...], Field(strict=False)]


class WrongOptions(InputError):
    """What a reader has to be told about its source was not told, or cannot be used."""


def parse_options(kind: type[SectionKind], options: Mapping[str, Any], format_name: str) -> SectionKind:
    """The options of a reader. Raises WrongOptions with every key that is unknown, missing or wrong."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        problems = [_problem(kind, each["type"], each["loc"], each["msg"]) for each in error.errors()]
        raise WrongOptions(f"the options of format {format_name} cannot be used", problems) from error


def _problem(kind: type[Section], code: str, where: tuple[int | str, ...], message: str) -> Problem:
    dotted = ".".join(str(part) for part in where)
    if code == "extra_forbidden":
        return Problem("unknown option", dotted, suggestion(dotted, list(kind.model_fields)))
    if code == "missing":
        field = kind.model_fields.get(str(where[0]))
        return Problem("is missing", dotted, (field and field.description) or "add it")
    if code == "tuple_type":
        return Problem("is no list", dotted, f"write {dotted}: [...]")
    return Problem(message.removeprefix("Value error, "), dotted)


def suggestion(name: str, known: Sequence[str]) -> str:
    """What to say about a name that is not `known`: the one that was probably meant, or all of them."""
    lowered = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), lowered, n=1)
    return f"did you mean {lowered[close[0]]!r}?" if close else f"there are {', '.join(known) or 'none'}"


def missing_names(wanted: Iterable[tuple[str, str]], known: Sequence[str], what: str) -> list[Problem]:
    """A problem for each (option, name) of `wanted` whose name is not `known`; "" is no name."""
    return [
        Problem(f"there is no {what} {name!r}", f"option {option}", suggestion(name, known))
        for option, name in wanted
        if name and name not in known
    ]
