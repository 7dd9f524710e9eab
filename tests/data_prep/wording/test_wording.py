"""How labels are written, letter by letter."""

from __future__ import annotations

import pytest

from data_prep.wording.characters import hidden, misleading, mixed, name_of
from data_prep.wording.checks import wording_flags, wording_flaws
from lensmith.data_settings import Wording
from lensmith.sample import Image, Message, Region, Sample, Text, Thinking


def row(question: str = "What is the total?", answer: str = "7") -> Sample:
    messages = (Message("user", (Image("a.png"), Text(question))), Message("assistant", (Text(answer),)))
    return Sample("a", "g", messages)


def flags(sample: Sample, **settings: int) -> list[str]:
    return [flag.code for flag in wording_flags(sample, Wording(**settings))]


@pytest.mark.parametrize(
    "char",
    [
        "\x00",
        "\x08",
        "\x0b",
        "\x1b",
        "\x7f",
        "\x85",
        "\u202e",
        "\u202a",
        "\u2066",
        "\ud800",
        "\ufffe",
        "\U000e0041",
    ],
)
def test_characters_that_are_refused(char: str) -> None:
    assert misleading(f"a{char}b") == [name_of(char)]
    (flaw,) = wording_flaws(row(answer=f"a{char}b"))
    assert flaw.code == "control_characters"
    assert name_of(char) in flaw.what
    flaw.what.encode()


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\r\nc",
        "Zażółć gęślą jaźń",
        "👨\u200d👩\u200d👧 at home",
        "🏳\ufe0f\u200d🌈",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می\u200cخواهم",  # noqa: RUF001
        "क्\u200dष",
        "שלום \u200fABC",
        "10 000 €",
        "μm, Δt, Ω, αβγ, H₂O, Москва, Αθήνα",
        "日本語　テキスト",
    ],
)
def test_texts_that_are_right(text: str) -> None:
    assert misleading(text) == hidden(text) == mixed(text) == []


@pytest.mark.parametrize(
    "char", ["\u200b", "\u00ad", "\u2060", "\ufeff", "\u200e", "\u200d", "\u200c", "\u3164"]
)
def test_characters_that_nobody_sees(char: str) -> None:
    assert hidden(f"pay{char}ment") == [name_of(char)]
    assert flags(row(answer=f"pay{char}ment")) == ["hidden_characters"]


@pytest.mark.parametrize("word", ["pаypal", "Аccount", "tοtal", "Μax", "ѕcan", "рayment"])  # noqa: RUF001
def test_look_alikes(word: str) -> None:
    assert mixed(f"the {word} is") == [word]
    assert flags(row(answer=f"the {word} is")) == ["mixed_scripts"]


def test_what_json_escapes_is_read_as_it_will_be() -> None:
    assert [flaw.code for flaw in wording_flaws(row(answer='{"a":"x\\u202ey"}'))] == ["control_characters"]
    assert [flaw.code for flaw in wording_flaws(row(answer='{"a":"\\ud83d"}'))] == ["control_characters"]
    assert list(wording_flaws(row(answer='{"a":"\\ud83d\\ude00 \\u00e4"}'))) == []
    assert flags(row(answer='{"a":"x\\u200by"}')) == ["hidden_characters"]


def test_thinking_and_labels_are_texts_too() -> None:
    parts = (Thinking("a\u202eb"), Region("point", (0, 0), "c\u202ed"), Text("7"))
    sample = Sample("a", "g", (Message("user", (Image("a"),)), Message("assistant", parts)))
    assert len(list(wording_flaws(sample))) == 1
    sample = Sample("a", "g", (Message("user", (Image("a"),)), Message("assistant", (*parts[1:],))))
    assert len(list(wording_flaws(sample))) == 1


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("What is the total?", "What is the total? It is 7.", ["repeats_question"]),
        ("What is the total?", "WHAT IS  THE TOTAL?", ["repeats_question"]),
        ("Total?", "total?", ["repeats_question"]),
        ("Total?", "The total? It is 7.", []),
        ("What is the total?", "The total is 7.", []),
        ("", "7", []),
        ("Read.", " 7", ["outer_space"]),
        ("Read.", "7\n", ["outer_space"]),
        ("Read.", "7 8\n9", []),
        ("Read.", '{"a": " 7"}', ["outer_space"]),
        ("Read.", '{"a": [{"b": "7\\n"}], "c": "8 "}', ["outer_space", "outer_space"]),
        ("Read.", '{"a": "7", " b": 8}', []),
        ("Read.", "{ 7 }", []),
        ("Read.", "{}", ["empty_fields"]),
        ("Read.", "[]", []),
        ("Read.", '{"a": "", "b": [null, {"c": ""}]}', ["empty_fields"]),
        ("Read.", '{"a": "", "b": 0}', []),
        ("Read.", '{"a": null, "b": false}', []),
    ],
)
def test_answers(question: str, answer: str, expected: list[str]) -> None:
    assert flags(row(question, answer)) == expected


def test_long_answers() -> None:
    assert flags(row(answer="x" * 11), longest_answer=10) == ["long_answer"]
    assert flags(row(answer="x" * 10), longest_answer=10) == []


def test_nothing_to_say_about_an_empty_row() -> None:
    assert flags(Sample("a", "g", ())) == []
