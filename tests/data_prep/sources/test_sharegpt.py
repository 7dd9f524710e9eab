"""ShareGPT's and LLaVA's conversations, and what `<image>` stands for in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sources.llava import Llava
from data_prep.sources.placeholders import join_parts, split_text
from data_prep.sources.sharegpt import ShareGPT
from lensmith.sample import Image, Message, Text, ToolCall
from tests.data_prep.sources.rows import GOLDEN, only, outcome, refused, taken

TURNS = [{"from": "human", "value": "<image>\nRead."}, {"from": "gpt", "value": "seven"}]


def test_the_golden_sharegpt_file() -> None:
    first, second, third = taken(ShareGPT(GOLDEN / "sharegpt.json"))
    assert first.messages == (
        Message("system", (Text("You read forms."),)),
        Message("user", (Image("images/a.png"), Text("Read the form."))),
        Message("assistant", (Text('{"n": 1}'),)),
    )
    assert second.messages == (
        Message("user", (Text("Compare "), Image("images/a.png"), Text(" with"), Image("images/b.png"))),
        Message("assistant", (ToolCall("crop", {"image": 1}),)),
        Message("tool", (Image("images/c.png"),)),
        Message("assistant", (Text("the same"),)),
    )
    assert second.tools == (
        {"type": "function", "function": {"name": "crop", "parameters": {"type": "object"}}},
    )
    assert (second.id, second.group, second.meta) == ("two", "images/a.png", {"score": 0.5})
    assert third.messages[0] == Message("user", (Image("images/d.png"), Text("Read.")))


def test_the_golden_llava_file() -> None:
    bus, pages, words = taken(Llava(GOLDEN / "llava.json"))
    assert [message.role for message in bus.messages] == ["user", "assistant", "user", "assistant"]
    assert (bus.id, bus.group) == ("000000033471", "coco/train2017/000000033471.jpg")
    assert pages.messages[0].parts == (Text("Which page has a table?"), Image("a/1.png"), Image("a/2.png"))
    assert (words.images, words.group) == ((), "words")


@pytest.mark.parametrize("reader", [ShareGPT, Llava])
@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        (
            {"conversations": TURNS, "images": ["a", "b"]},
            "image_count",
            "the texts hold 1 <image>, the row names 2 images",
        ),
        ({"conversations": TURNS}, "image_count", "the texts hold 1 <image>, the row names 0 images"),
        ({"conversations": TURNS, "image": 5}, "schema", "image is not a list of paths"),
        ({"conversations": TURNS, "images": ["a", None]}, "schema", "images is not a list of paths"),
        ({"conversations": TURNS, "image": "a", "images": ["a"]}, "schema", "both image and images"),
        ({"conversations": 5}, "schema", "conversations is not a list"),
        ({"conversations": ["x"]}, "schema", "conversations[0].from is missing"),
        ({"conversations": [{"from": "nobody"}]}, "schema", "conversations[0].from 'nobody' is not known"),
        ({"conversations": [{"from": "human"}]}, "schema", "conversations[0].value is missing"),
        (
            {"conversations": [{"from": "human", "value": 5}]},
            "schema",
            "conversations[0].value is not a text",
        ),
        ({}, "schema", "is missing"),
        (5, "schema", "is not a JSON object"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, reader: Any, row: object, code: str, said: str) -> None:
    refused(only(tmp_path, reader, row), code, said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"audios": ["a.mp3"]}, "the row names audios"),
        ({"system": 5}, "system is not a text"),
        ({"conversations": [{"from": "function_call", "value": "{"}]}, "is not JSON"),
        ({"conversations": [{"from": "function_call", "value": "[]"}]}, "calls nothing"),
        ({"conversations": [{"from": "function_call", "value": "{}"}]}, "names no function"),
    ],
)
def test_says_what_is_wrong_with_sharegpt(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    row = {"conversations": TURNS, "images": ["a.png"]} | changes
    if "conversations" in changes:
        row["images"] = []
    refused(only(tmp_path, ShareGPT, row), "schema", said)


def test_llava_knows_no_tools(tmp_path: Path) -> None:
    row = {"conversations": [*TURNS, {"from": "observation", "value": "x"}], "image": "a.png"}
    refused(only(tmp_path, Llava, row), "schema", "'observation' is not known")


def test_an_empty_text_stays_a_part(tmp_path: Path) -> None:
    row = {"conversations": [TURNS[0], {"from": "gpt", "value": ""}], "image": "a.png"}
    found = only(tmp_path, Llava, row)
    assert found.sample is not None
    assert found.sample.messages[-1].parts == (Text(""),)


@given(st.lists(st.none() | st.text(alphabet="a \n<>", min_size=1, max_size=4), max_size=6))
def test_placeholders_come_back_as_they_were(shape: list[str | None]) -> None:
    parts: list[Image | Text] = []
    for at, text in enumerate(shape):
        if text is None:
            parts.append(Image(f"{at}.png"))
        elif not (parts and isinstance(parts[-1], Text)):
            parts.append(Text(text))
    images = [part.path for part in parts if isinstance(part, Image)]
    assert split_text(join_parts(parts), images) == parts


_JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["human", "gpt", "<image>", "function_call", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["from", "value", "role", "content", "name"]), inner, max_size=4)
    ),
    max_leaves=12,
)
_NAMES = ["conversations", "messages", "image", "images", "tools", "system", "id", "group", "meta", "origin"]


@given(st.dictionaries(st.sampled_from(_NAMES), _JSON))
def test_no_json_breaks_the_readers(row: dict[str, Any]) -> None:
    for reader in (ShareGPT, Llava):
        samples, flaws = outcome(reader(Path("x.json")), row)
        assert bool(samples) != bool(flaws)
        json.dumps([sample.meta for sample in samples])
