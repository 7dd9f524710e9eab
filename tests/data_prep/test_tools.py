"""Conversations with tools: whose turn it is, and what may be called with what."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from data_prep.checks import check_sample
from data_prep.refusal import Flaw
from data_prep.tools import speech_flaws
from lensmith import families
from lensmith.errors import InputError
from lensmith.rendering import Rendering
from lensmith.sample import Image, Message, Part, Region, Role, Sample, Text, Thinking, ToolCall

MARKUP = families.get("qwen3_vl").markup
ASK = Message("user", (Image("a.png"), Text("Read.")))
SCHEMA = {
    "type": "object",
    "properties": {"bbox_2d": {"type": "array"}, "img_idx": {"type": "integer"}, "label": {"type": "string"}},
    "required": ["bbox_2d"],
    "additionalProperties": False,
}
ZOOM = {"type": "function", "function": {"name": "zoom", "description": "", "parameters": SCHEMA}}
CALL = ToolCall("zoom", {"bbox_2d": {"$box": [0, 0, 0.5, 1]}, "img_idx": {"$image": 0}})


def said(role: Role, *parts: Part | str) -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def flaws(
    *messages: Message, tools: tuple[dict[str, Any], ...] = (ZOOM,), answer: str = "text"
) -> list[Flaw]:
    wanted = "json" if answer == "json" else "text"
    return check_sample(Sample("a", "g", messages, tools=tools), wanted, MARKUP, 4)


def codes(*messages: Message, answer: str = "text") -> list[str]:
    return [flaw.code for flaw in flaws(*messages, answer=answer)]


CALLING, RESULT, ANSWER = said("assistant", CALL), said("tool", "done"), said("assistant", "7")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((ASK, CALLING, RESULT, ANSWER), []),
        ((ASK, CALLING), []),
        ((ASK, said("assistant", "I look.", CALL, CALL), RESULT, RESULT, ANSWER), []),
        ((ASK, CALLING, RESULT, CALLING, RESULT, ANSWER, said("user", "Sure?"), ANSWER), []),
        ((ASK, CALLING, said("tool", "cut", Image("b.png")), said("assistant", Thinking("Now."), "7")), []),
        ((ASK, CALLING, said("tool"), ANSWER), []),
        ((ASK, CALLING, ANSWER), ["turns"]),
        ((ASK, CALLING, RESULT, RESULT, ANSWER), ["turns"]),
        ((ASK, said("assistant", CALL, CALL), RESULT, ANSWER), ["turns"]),
        ((ASK, RESULT, ANSWER), ["turns"]),
        ((ASK, ANSWER, RESULT, ANSWER), ["turns"]),
        ((ASK, CALLING, RESULT), ["turns"]),
        ((ASK, CALLING, RESULT, said("user", "And?"), ANSWER), ["turns"]),
        ((said("system", "x"), RESULT, ASK, ANSWER), ["turns"]),
        ((ASK, said("assistant", "7", Thinking("Late."))), ["part_place"]),
        ((ASK, said("assistant", Thinking("One."), Thinking("Two."), "7")), ["part_place"]),
        ((ASK, said("assistant", CALL, "after")), ["part_place"]),
        ((ASK, said("assistant", Thinking("x"), "before", CALL)), []),
        ((said("user", Image("a.png"), Thinking("?")), ANSWER), ["part_place"]),
        ((said("user", Image("a.png"), CALL), ANSWER), ["part_place"]),
        ((ASK, said("assistant", CALL, Image("b.png"))), ["image_place", "part_place"]),
        ((ASK, said("assistant", Thinking("Only this."))), ["empty_answer"]),
        ((ASK, said("assistant", Region("box", (0, 0, 1, 1)))), []),
        ((ASK, said("assistant", " "), said("user", "?"), ANSWER), ["empty_message"]),
    ],
)
def test_turns_with_tools(turns: tuple[Message, ...], expected: list[str]) -> None:
    assert codes(*turns) == expected


def test_a_call_is_no_json_answer_and_regions_are_none() -> None:
    assert codes(ASK, CALLING, answer="json") == []
    assert codes(ASK, said("assistant", Region("box", (0, 0, 1, 1))), answer="json") == ["answer_not_json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bbox_2d": [1, 2, 3, 4], "label": "x"}, []),
        ({"bbox_2d": {"$box": [0.1, 0.1, 0.2, 0.2]}, "img_idx": {"$image": 0}}, []),
        ({}, ["'bbox_2d' is a required property"]),
        ({"bbox_2d": "all"}, ["bbox_2d: 'all' is not of type 'array'"]),
        ({"bbox_2d": [], "img_idx": "0"}, ["img_idx: '0' is not of type 'integer'"]),
        ({"bbox_2d": [], "colour": 1}, ["'colour' was unexpected"]),
        ({"bbox_2d": {"$box": [0.1, 0.1, 0.2, 1.2]}}, ["leaves the image"]),
        ({"bbox_2d": {"$box": [0.3, 0.1, 0.2, 0.2]}}, ["turned over"]),
        ({"bbox_2d": {"$box": "all"}}, ["wants a list of numbers"]),
        ({"bbox_2d": {"$point": [0.1]}}, ["2 numbers, not 1"]),
        ({"bbox_2d": [], "img_idx": {"$image": 1}}, ["image 1 is none of the row's 1"]),
        ({"bbox_2d": [], "img_idx": {"$image": True}}, ["image True is none"]),
    ],
)
def test_arguments_are_those_that_the_tool_asks_for(arguments: dict[str, Any], words: list[str]) -> None:
    found = flaws(ASK, said("assistant", ToolCall("zoom", arguments)))
    assert [flaw.code for flaw in found] == ["tool_call"] * len(words)
    assert all(word in flaw.what for word, flaw in zip(words, found, strict=True))


def test_a_tool_that_is_not_defined() -> None:
    (flaw,) = flaws(ASK, said("assistant", ToolCall("zom", {})))
    assert "no tool is defined under this name" in flaw.what
    assert "zoom" in flaw.mend
    assert [flaw.code for flaw in flaws(ASK, CALLING, tools=())] == ["tool_call"]


@pytest.mark.parametrize(
    ("tool", "word"),
    [
        ({"type": "function"}, "is not a function"),
        ({"type": "web", "function": {"name": "f"}}, "is not a function"),
        ({"function": {"name": " "}}, "has no name"),
        ({"function": {"name": "zoom"}}, "as another one is"),
        ({"function": {"name": "f", "schema": {}}}, "unknown field 'schema'"),
        ({"function": {"name": "f", "description": 3}}, "description that is not text"),
        ({"function": {"name": "f", "parameters": []}}, "no JSON Schema"),
        ({"function": {"name": "f", "parameters": {"type": "objekt"}}}, "no JSON Schema"),
    ],
)
def test_definitions(tool: dict[str, Any], word: str) -> None:
    (flaw,) = flaws(ASK, ANSWER, tools=(ZOOM, tool))
    assert flaw.code == "tool_definition"
    assert word in flaw.what


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_hostile_definitions_and_arguments_end_in_a_flaw(monkeypatch: pytest.MonkeyPatch) -> None:
    """A $ref is never fetched, a circle and a deep nest are no endless work."""

    def no_network(*_: object) -> None:
        raise AssertionError("a schema was fetched")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    for schema in ({"$ref": "http://169.254.169.254/x"}, {"$ref": "#"}, {"$ref": "#/nowhere"}):
        tool = {"function": {"name": "f", "parameters": schema}}
        (flaw,) = flaws(ASK, said("assistant", ToolCall("f", {})), tools=(tool,))
        assert (flaw.code, "cannot be followed" in flaw.what) == ("tool_call", True)
    tool = {"function": {"name": "f", "parameters": {}}}
    deep = said("assistant", ToolCall("f", {"x": nested(5000)}))
    assert [flaw.code for flaw in flaws(ASK, deep, tools=(tool,))] == ["tool_call"]
    tool = {"function": {"name": "f", "parameters": {"default": nested(5000)}}}
    assert [flaw.code for flaw in flaws(ASK, ANSWER, tools=(tool,))] == ["tool_definition"]


@pytest.mark.parametrize(
    "part",
    [
        Region("box", (0, 0, 1, 1), "</think>"),
        Thinking("so </think> what"),
        ToolCall("zoom", {"bbox_2d": [], "label": "x</tool_call>"}),
        ToolCall("zoom", {"bbox_2d": [["<|im_end|>"]]}),
    ],
)
def test_markup_hides_nowhere(part: Part) -> None:
    assert codes(ASK, said("assistant", part)).count("markup") == 1


def test_markup_in_a_definition() -> None:
    tool = {"function": {"name": "f", "description": "<tool_call>", "parameters": {"title": "<|im_end|>"}}}
    assert [flaw.code for flaw in flaws(ASK, ANSWER, tools=(tool,))] == ["markup", "markup"]


def test_what_is_taken_can_be_rendered() -> None:
    """A row without flaws renders for the family: nothing that passes stops a training."""
    message = said("assistant", Thinking("x"), "before", CALL)
    assert codes(ASK, message) == []
    sample = Sample("a", "g", (ASK, message), tools=(ZOOM,))
    for name in families.FAMILIES:
        rendering = Rendering(families.get(name))
        found = [flaw.code for flaw in speech_flaws(sample, rendering)]
        if found:
            assert found == ["tool_definition", "part_place", "part_place"]
            with pytest.raises(InputError):
                rendering.messages(sample.messages)
            with pytest.raises(InputError):
                rendering.tools(sample)
        else:
            assert "before\n<tool_call>" in rendering.answer(message)


def test_thoughts_that_are_left_out_need_no_template() -> None:
    sample = Sample("a", "g", (ASK, said("assistant", Thinking("x"), "12")))
    family = families.get("gemma3")
    assert [flaw.code for flaw in speech_flaws(sample, Rendering(family))] == ["part_place"]
    assert [flaw.code for flaw in speech_flaws(sample, Rendering(family, "drop"))] == []
