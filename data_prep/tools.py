"""Tool definitions and calls: every call names a defined tool and gives the arguments that it asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from data_prep.refusal import Flaw, quoted
from lensmith.coordinates import region_problems
from lensmith.rendering import BOX_ARGUMENT, IMAGE_ARGUMENT, POINT_ARGUMENT, Rendering
from lensmith.sample import Region, RegionKind, Sample, Thinking, ToolCall

_MARKERS = (IMAGE_ARGUMENT, BOX_ARGUMENT, POINT_ARGUMENT)
_PLACES: dict[str, RegionKind] = {BOX_ARGUMENT: "box", POINT_ARGUMENT: "point"}
_DEFINITION = (
    '{"type": "function", "function": {"name": ..., "description": ..., "parameters": {JSON Schema}}}'
)
# "strict" is an order to an engine's decoding; any other field more would be left out without a word.
_FIELDS = {"name", "description", "parameters", "strict"}
_SHOWN = 5
# No tool asks for more, and every reader that walks arguments may take them as shallow.
_DEEPEST = 32


def tool_flaws(sample: Sample) -> Iterator[Flaw]:
    """What is wrong with the row's tool definitions, and with each call: name, arguments, images, places."""
    schemas: dict[str, dict[str, Any]] = {}
    for number, tool in enumerate(sample.tools, start=1):
        problem = _definition_problem(tool, schemas)
        if problem:
            yield Flaw("tool_definition", f"tool {number} {problem}", f"define it as {_DEFINITION}")
        else:
            schemas[tool["function"]["name"]] = tool["function"].get("parameters", {})
    for number, message in enumerate(sample.messages, start=1):
        for call in message.parts:
            if isinstance(call, ToolCall):
                for what, mend in _call_problems(call, schemas, len(sample.stills)):
                    yield Flaw("tool_call", f"message {number} calls {quoted(call.name)}: {what}", mend)


def speech_flaws(sample: Sample, rendering: Rendering) -> Iterator[Flaw]:
    """Thoughts and tools that the family's chat template would leave out, or raise an error for."""
    if not rendering.writes_tools:
        mend = "leave them out, or train a family that calls tools"
        if sample.tools:
            yield Flaw("tool_definition", f"tools are defined, {rendering.family.title} knows none", mend)
        for number, message in enumerate(sample.messages, start=1):
            if any(isinstance(part, ToolCall) for part in message.parts) or message.role == "tool":
                what = f"message {number} belongs to a tool call, {rendering.family.title} knows none"
                yield Flaw("part_place", what, mend)
    if not rendering.takes(sample.messages):
        what = f"a system message begins the conversation, {rendering.family.title} has no place for it"
        yield Flaw("turns", what, "move its words into the first question")
    if not rendering.writes_thoughts:
        for number, message in enumerate(sample.messages, start=1):
            if any(isinstance(part, Thinking) for part in message.parts):
                what = f"message {number} holds a thought, {rendering.family.title} writes none"
                yield Flaw("part_place", what, "set train.thinking: drop, or leave them out")


def _definition_problem(tool: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, dict):
        return "is not a function"
    name = function.get("name")
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        return "has no name"
    if name in known:
        return f"is called {quoted(name)}, as another one is"
    if unknown := sorted(function.keys() - _FIELDS):
        return f"has the unknown field {quoted(unknown[0])}"
    if not isinstance(function.get("description", ""), str):
        return "has a description that is not text"
    parameters = function.get("parameters", {})
    if not isinstance(parameters, dict) or _depth(parameters) > _DEEPEST:
        return "has parameters that are no JSON Schema, or a very deep one"
    try:
        Draft202012Validator.check_schema(parameters)
    except (SchemaError, RecursionError) as error:
        return f"has parameters that are no JSON Schema: {_message(error)}"
    return ""


def _call_problems(
    call: ToolCall, schemas: Mapping[str, dict[str, Any]], images: int
) -> Iterator[tuple[str, str]]:
    if call.name not in schemas:
        known = ", ".join(schemas) or "there are none"
        yield "no tool is defined under this name", f'correct the name or add it to "tools" ({known})'
        return
    if _depth(call.arguments) > _DEEPEST:
        yield f"its arguments are nested deeper than {_DEEPEST}", "give flat arguments"
        return
    for marker, value in _markers(call.arguments):
        if problem := _marker_problem(marker, value, images):
            yield problem, "correct the argument"
    try:
        errors = sorted(
            _validator(schemas[call.name]).iter_errors(call.arguments), key=lambda e: list(e.path)
        )
    except (Unresolvable, RecursionError) as error:
        yield f"its definition cannot be followed: {_message(error)}", "define the tool in one piece"
        return
    wrong = [error for error in errors if not _within_marker(call.arguments, list(error.absolute_path))]
    for error in wrong[:_SHOWN]:
        where = ".".join(str(part) for part in error.absolute_path)
        yield f"{where + ': ' if where else ''}{_message(error)}", "give the arguments that the tool asks for"


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    return _validator_of(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=256)
def _validator_of(schema: str) -> Draft202012Validator:
    # An empty registry: the default one would fetch a $ref from any address.
    return Draft202012Validator(json.loads(schema), registry=Registry())


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _is_marker(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _MARKERS


def _within_marker(arguments: Any, path: Sequence[Any]) -> bool:
    """Images and places are written by the family, as numbers or text: the tool's schema sees only those."""
    value = arguments
    for part in path:
        if _is_marker(value):
            return True
        value = value[part]
    return _is_marker(value)


def _markers(value: Any) -> Iterator[tuple[str, Any]]:
    if _is_marker(value):
        yield from value.items()
    elif isinstance(value, dict):
        for each in value.values():
            yield from _markers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _markers(each)


def _marker_problem(marker: str, value: Any, images: int) -> str:
    if marker == IMAGE_ARGUMENT:
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < images
        return "" if good else f"image {value!r} is none of the row's {images} (from 0)"
    numbers = value if isinstance(value, list) else []
    if not numbers or not all(
        isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers
    ):
        return f"{marker} wants a list of numbers"
    return "; ".join(region_problems(Region(_PLACES[marker], tuple(numbers)), max(images, 1)))


def _message(error: Exception) -> str:
    text = error.message if isinstance(error, (ValidationError, SchemaError)) else type(error).__name__
    return text if len(text) <= 120 else f"{text[:120]}..."
