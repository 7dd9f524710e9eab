"""Conversations that are refused, and why."""

from __future__ import annotations

import pytest

from data_prep.checks import check_sample
from lensmith import families
from lensmith.sample import Image, Message, Region, Role, Sample, Text

MARKUP = families.get("qwen3_vl").markup
ASK = Message("user", (Image("a.png"), Text("Read.")))


def said(role: Role, text: str) -> Message:
    return Message(role, (Text(text),))


def codes(*messages: Message, answer: str = "text", max_images: int = 2) -> list[str]:
    wanted = "json" if answer == "json" else "text"
    return [flaw.code for flaw in check_sample(Sample("a", "g", messages), wanted, MARKUP, max_images)]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((ASK, said("assistant", "7")), []),
        ((said("system", "Be brief."), ASK, said("assistant", "7")), []),
        ((ASK, said("assistant", "7"), said("user", "Sure?"), said("assistant", "Yes")), []),
        ((), ["turns", "no_image"]),
        ((ASK,), ["turns"]),
        ((ASK, said("assistant", "7"), said("user", "Sure?")), ["turns"]),
        ((said("assistant", "Hello"), ASK, said("assistant", "7")), ["turns"]),
        ((ASK, ASK, said("assistant", "7")), ["turns"]),
        ((ASK, said("system", "Be brief."), said("assistant", "7")), ["turns"]),
        ((said("user", "Hi"), said("assistant", "7")), ["no_image"]),
        ((ASK, Message("assistant", (Text("7"), Image("b.png")))), ["image_place"]),
        ((Message("system", (Image("b.png"),)), ASK, said("assistant", "7")), ["image_place"]),
        ((said("system", " "), ASK, said("assistant", "7")), ["empty_message"]),
        ((ASK, said("assistant", " \n")), ["empty_answer"]),
        ((ASK, Message("assistant", ())), ["empty_answer"]),
        ((said("user", "<|im_end|>"), said("assistant", " ")), ["no_image", "markup", "empty_answer"]),
    ],
)
def test_turns_images_and_texts(messages: tuple[Message, ...], expected: list[str]) -> None:
    assert codes(*messages) == expected


def test_text_alone_where_it_is_meant() -> None:
    sample = Sample("a", "g", (said("user", "Hi"), said("assistant", "7")))
    assert check_sample(sample, "text", (), 1, text_only=True) == []
    (flaw,) = check_sample(sample, "text", (), 1)
    assert "set data.text_only where none is meant" in flaw.mend


def test_images_are_counted_over_the_whole_request() -> None:
    messages = (ASK, said("assistant", "7"), ASK, said("assistant", "8"))
    assert codes(*messages, max_images=2) == []
    assert codes(*messages, max_images=1) == ["too_many_images"]


@pytest.mark.parametrize("token", MARKUP)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_markup_in_any_text(token: str, at: int) -> None:
    messages = [said("system", "Be brief."), ASK, said("assistant", "7")]
    messages[at] = Message(messages[at].role, (*messages[at].parts, Text(f"x{token}y")))
    assert codes(*messages) == ["markup"]


@pytest.mark.parametrize("token", MARKUP)
@pytest.mark.parametrize("at", [1, 2])
def test_markup_cut_in_two_parts_is_written_as_one(token: str, at: int) -> None:
    halves = token[:3], token[3:]
    for parts in (tuple(map(Text, halves)), (Text(halves[0]), Region("point", (0, 0), halves[1]))):
        messages = [ASK, said("assistant", "7")]
        messages[at - 1] = Message(messages[at - 1].role, (*messages[at - 1].parts, *parts))
        assert codes(*messages) == ["markup"]
    # A picture is written between them.
    apart = Message("user", (Text(halves[0]), Image("a.png"), Text(halves[1])))
    assert codes(apart, said("assistant", "7")) == []


def test_markup_is_the_family_s_own() -> None:
    messages = (ASK, said("assistant", "7 <|image_pad|>"))
    glm = families.get("glm4v").markup
    assert check_sample(Sample("a", "g", messages), "text", glm, 1) == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"n": 7}', []),
        ("7", ["answer_not_json"]),
        ('["n"]', ["answer_not_json"]),
        ('{"n": 7', ["answer_not_json"]),
        ('{"n": NaN}', ["answer_not_json"]),
        ('{"n": 7, "n": 8}', ["answer_not_json"]),
        ("[" * 100_000, ["answer_not_json"]),
        ('{"n": 7}<|im_end|>', ["markup"]),
        ("", ["empty_answer"]),
    ],
)
def test_json_answers(answer: str, expected: list[str]) -> None:
    assert codes(ASK, said("assistant", answer), answer="json") == expected
