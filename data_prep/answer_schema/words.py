"""A schema's verdicts in the words of people who fill in forms."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jsonschema.exceptions import ValidationError, best_match

from data_prep.refusal import Flaw, quoted

MOST = 10
_SHOWN = 8
_KINDS = {
    "object": "an object {...}",
    "array": "a list [...]",
    "string": "text in quotes",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}
_DATES = {
    "date": "a date as 2026-05-31",
    "time": "a time as 14:30:00",
    "date-time": "a date and time with zone as 2026-05-31T14:30:00+02:00",
    "email": "an e-mail address",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "uuid": "a UUID",
}


def flaws_of(errors: Iterable[ValidationError]) -> list[Flaw]:
    """One flaw an error, in the order of the answer's fields, the first ten; equal ones once."""
    ordered = sorted(errors, key=lambda each: [str(step) for step in each.absolute_path])
    flaws = dict.fromkeys(flaw for error in ordered for flaw in _flaws(error))
    return list(flaws)[:MOST]


def field_path(error: ValidationError) -> str:
    """Where in the answer: `payments[2].amount`; "the answer" for the whole."""
    text = ""
    for step in error.absolute_path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text if text else "the answer"


def _flaws(error: ValidationError) -> Iterator[Flaw]:
    describe = _WORDS.get(str(error.validator))
    if describe is None:
        expected, mend = f"does not fit the schema: {error.message}", "correct it"
    else:
        expected, mend = describe(error)
    yield Flaw("answer_schema", f"{field_path(error)} {expected}", mend)


def _wanted(error: ValidationError) -> Any:
    """The keyword's value in the schema."""
    return error.validator_value


def _length(error: ValidationError) -> int:
    return len(error.instance) if isinstance(error.instance, str | list | dict) else 0


def _known(error: ValidationError) -> list[str]:
    """The fields that the schema names."""
    return list(error.schema.get("properties", {})) if isinstance(error.schema, dict) else []


def _value(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict | list):
        return _KINDS["object" if isinstance(value, dict) else "array"]
    return json.dumps(value)


def _type(error: ValidationError) -> tuple[str, str]:
    wanted = _wanted(error)
    kinds = [wanted] if isinstance(wanted, str) else list(wanted)
    expected = " or ".join(_KINDS[kind] for kind in kinds)
    mend = f"write {expected}"
    if isinstance(error.instance, str) and {"number", "integer"} & set(kinds):
        mend = "write it as a number: without quotes, with a point before decimals"
    return f"is {_value(error.instance)}; {expected} is expected", mend


def _required(error: ValidationError) -> tuple[str, str]:
    missing = [name for name in _wanted(error) if name not in error.instance]
    return f"lacks {_names(missing)}", f"add {_names(missing)}"


def _additional(error: ValidationError) -> tuple[str, str]:
    name = error.message
    close = difflib.get_close_matches(name, _known(error), n=1)
    mend = f"did you mean {close[0]}?" if close else "remove it"
    return f"has a field {quoted(name)} that nobody asked for", mend


def _enum(error: ValidationError) -> tuple[str, str]:
    choices = _wanted(error)
    shown = ", ".join(_value(each) for each in choices[:_SHOWN]) + (", ..." if len(choices) > _SHOWN else "")
    close = difflib.get_close_matches(
        str(error.instance), [each for each in choices if isinstance(each, str)], n=1
    )
    mend = f"did you mean {close[0]}?" if close else "write one of these"
    return f"is {_value(error.instance)}; one of {shown} is expected", mend


def _forms(error: ValidationError) -> tuple[str, str]:
    if not error.context:
        return "fits more than one of the allowed forms", "leave out what does not belong to one of them"
    closest = best_match(error.context)
    assert closest is not None  # there is a context
    first = next(_flaws(closest))
    return (
        f"fits none of the {len(_wanted(error))} allowed forms; the closest: {first.what}",
        first.mend,
    )


def _bound(words: str) -> Callable[[ValidationError], tuple[str, str]]:
    def describe(error: ValidationError) -> tuple[str, str]:
        expected = words.format(_wanted(error))
        return f"is {_value(error.instance)}; {expected} is expected", f"write {expected}"

    return describe


def _size(words: str, unit: str) -> Callable[[ValidationError], tuple[str, str]]:
    def describe(error: ValidationError) -> tuple[str, str]:
        expected = words.format(_wanted(error))
        return f"has {_length(error)} {unit}; {expected} are expected", f"write {expected} {unit}"

    return describe


def _pattern(error: ValidationError) -> tuple[str, str]:
    return (
        f"is {_value(error.instance)}, which is not of the form {_wanted(error)}",
        "write it in this form, or correct the pattern in data.answer_schema",
    )


def _format(error: ValidationError) -> tuple[str, str]:
    expected = _DATES[_wanted(error)]
    return f"is {_value(error.instance)}; {expected} is expected", f"write {expected}"


def _const(error: ValidationError) -> tuple[str, str]:
    expected = _value(_wanted(error))
    return f"is {_value(error.instance)}; {expected} is expected", f"write {expected}"


def _unique(error: ValidationError) -> tuple[str, str]:
    return "has the same entry twice", "remove the repetition"


def _names(names: list[str]) -> str:
    return f"the field{'s' if len(names) > 1 else ''} {', '.join(names)}"


_WORDS: dict[str, Callable[[ValidationError], tuple[str, str]]] = {
    "type": _type,
    "required": _required,
    "additionalProperties": _additional,
    "enum": _enum,
    "const": _const,
    "anyOf": _forms,
    "oneOf": _forms,
    "minimum": _bound("{} or more"),
    "maximum": _bound("{} or less"),
    "exclusiveMinimum": _bound("more than {}"),
    "exclusiveMaximum": _bound("less than {}"),
    "multipleOf": _bound("a multiple of {}"),
    "minLength": _size("at least {}", "characters"),
    "maxLength": _size("at most {}", "characters"),
    "minItems": _size("at least {}", "entries"),
    "maxItems": _size("at most {}", "entries"),
    "minProperties": _size("at least {}", "fields"),
    "maxProperties": _size("at most {}", "fields"),
    "uniqueItems": _unique,
    "pattern": _pattern,
    "format": _format,
}
