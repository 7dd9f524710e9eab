"""OpenAI's chat rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.refusal import Flaw
from data_prep.sources.openai_messages import OpenAIMessages
from data_prep.sources.records import RowOptions
from lensmith.sample import Image, Message, Origin, Text, Thinking, ToolCall
from tests.data_prep.sources.rows import GOLDEN, only, outcome, refused, taken

ANSWER = {"role": "assistant", "content": "seven"}
QUESTION = {"role": "user", "content": "Read."}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "crop", "arguments": "{}"}}],
}


def test_the_golden_file() -> None:
    source = OpenAIMessages(GOLDEN / "openai.jsonl")
    plain, tooled, typed, address = taken(source)
    assert plain.messages == (
        Message("system", (Text("You read forms."),)),
        Message("user", (Text("Read the form."), Image("images/a.png"))),
        Message("assistant", (Text('{"n": 1}'),)),
    )
    assert plain.id.startswith("row-")
    assert plain.group == "images/a.png"
    assert (tooled.id, tooled.group) == ("7", "customer-1")
    assert tooled.meta == {"desk": "north", "by": "hand"}
    assert tooled.origin == Origin(labeller="ana")
    assert [tool["function"]["name"] for tool in tooled.tools] == ["crop"]
    assert tooled.messages[1:] == (
        Message(
            "assistant", (Thinking("I look closer."), ToolCall("crop", {"image": 0}), ToolCall("crop", {}))
        ),
        Message("tool", (Image("images/left.png"),)),
        Message("tool", (Text("right"),)),
        Message("assistant", (Text("é and 漢"),)),
    )
    first, second = typed.images
    assert source.picture(first.path) == b"\x89PNG"
    assert source.picture(second.path) == b"\x00\x01\x02"
    assert source.picture_stamp(first.path) == []
    assert typed.group == typed.id
    assert address.messages[0].role == "system"
    assert address.images == (Image("https://example.org/a.png"),)
    assert isinstance(source.picture("https://example.org/a.png"), Flaw)


def test_rows_are_named_by_what_they_say(tmp_path: Path) -> None:
    """A row handed over before it renames none."""
    lines = (GOLDEN / "openai.jsonl").read_text().splitlines()
    (tmp_path / "more.jsonl").write_text("\n".join([lines[3], *lines]))
    ids = [sample.id for sample in taken(OpenAIMessages(tmp_path / "more.jsonl"))]
    assert ids == [ids[4], *(sample.id for sample in taken(OpenAIMessages(GOLDEN / "openai.jsonl")))]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1], "is not a JSON object"),
        ({}, "messages is missing"),
        ({"messages": {}}, "messages is not a list"),
        ({"preferred_output": [], "messages": []}, "a pair of preferences"),
        ({"messages": [], "functions": []}, "functions is the older form"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role 'narrator' is not known"),
        ({"messages": [{"content": "x"}]}, "messages[0].role is missing"),
        ({"messages": [5]}, "messages[0].role is missing"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
        ({"messages": [{"role": "user", "content": 5}]}, "neither text nor a list"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "'input_audio' cannot be"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0] has no type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url has no url"),
        ({"messages": [QUESTION, {**ANSWER, "weight": 0}]}, "weight 0"),
        ({"messages": [QUESTION, {**ANSWER, "tool_calls": 5}]}, "tool_calls is not a list"),
        ({"messages": [QUESTION, {**ANSWER, "tool_calls": [{"id": "x"}]}]}, "names no function"),
        (
            {"messages": [{**ANSWER, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "are not JSON",
        ),
        (
            {"messages": [{**ANSWER, "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}]},
            "are not an object",
        ),
        ({"messages": [QUESTION, CALL, {"role": "tool", "content": "x"}, ANSWER]}, "answers no tool call"),
        (
            {"messages": [QUESTION, {"role": "tool", "content": "x", "tool_call_id": "a"}, CALL]},
            "answers no tool call",
        ),
        ({"messages": [QUESTION, ANSWER], "tools": "{"}, "tools is not JSON"),
        ({"messages": [QUESTION, ANSWER], "tools": 5}, "tools is not a list"),
        ({"messages": [QUESTION, ANSWER], "tools": [{"type": "function"}]}, "tools[0] is no function"),
        ({"messages": [QUESTION, ANSWER], "id": ""}, "id is ''"),
        ({"messages": [QUESTION, ANSWER], "id": "a\x1b"}, "control characters"),
        ({"messages": [QUESTION, ANSWER], "group": None}, "group is missing"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, row: object, said: str) -> None:
    refused(only(tmp_path, OpenAIMessages, row), "schema", said)


def test_all_flaws_of_a_row_at_once(tmp_path: Path) -> None:
    row = {
        "id": "r",
        "messages": [{"role": "x"}, {"role": "user", "content": [{"type": "a"}, {"type": "b"}]}],
    }
    found = only(tmp_path, OpenAIMessages, row)
    assert (found.row, found.place, len(found.flaws)) == ("r", "rows.jsonl:2", 3)


def test_fields_are_found_where_the_options_say(tmp_path: Path) -> None:
    row = {"messages": [QUESTION, ANSWER], "meta": {"form": {"number": 4}, "customer": "c"}}
    options = RowOptions(id="meta.form.number", group="meta.customer")
    found = only(tmp_path, lambda path: OpenAIMessages(path, options), row)
    assert found.sample is not None
    assert (found.sample.id, found.sample.group) == ("4", "c")
    missing = only(tmp_path, lambda path: OpenAIMessages(path, RowOptions(group="meta.desk")), row)
    refused(missing, "schema", "meta.desk is missing")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64,!!!", "image_unreadable"),
        ("data:image/png,x", "image_unreadable"),
        ("data:", "image_unreadable"),
    ],
)
def test_pictures_typed_in_wrongly(tmp_path: Path, url: str, code: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    found = only(tmp_path, OpenAIMessages, {"messages": [{"role": "user", "content": content}, ANSWER]})
    assert found.sample is not None
    flaw = OpenAIMessages(tmp_path / "rows.jsonl").picture(found.sample.images[0].path)
    assert isinstance(flaw, Flaw)
    assert flaw.code == code


@pytest.mark.parametrize(
    "path", ["openai.jsonl@0+10#0", "openai.jsonl@99999999+5#0", "openai.jsonl@0+10000#7"]
)
def test_a_place_without_a_picture(path: str) -> None:
    flaw = OpenAIMessages(GOLDEN / "openai.jsonl").picture(path)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "image_missing"


def test_pictures_are_found_in_a_list_too(tmp_path: Path) -> None:
    lines = (GOLDEN / "openai.jsonl").read_text().splitlines()
    (tmp_path / "rows.json").write_text("[\n" + ",\n".join(lines) + "\n]", encoding="utf-8")
    source = OpenAIMessages(tmp_path / "rows.json")
    found = list(source.rows())
    assert found[2].place == "rows.json row 3"
    assert found[2].sample is not None
    assert [source.picture(image.path) for image in found[2].sample.images] == [b"\x89PNG", b"\x00\x01\x02"]


def test_images_lie_in_the_folder_of_the_options(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    source = OpenAIMessages(tmp_path / "rows.jsonl", RowOptions(folder="scans"))
    assert source.picture("a.png") == (tmp_path / "scans" / "a.png").resolve()
    assert isinstance(source.picture("../a.png"), Flaw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["user", "tool", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "image_url",
                    "url",
                    "tool_calls",
                    "tool_call_id",
                    "id",
                    "name",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "id", "group", "meta", "tools", "origin"]), JSON))
def test_no_json_breaks_the_reader(row: dict[str, Any]) -> None:
    row.setdefault("messages", [QUESTION, ANSWER])
    samples, flaws = outcome(OpenAIMessages(Path("x.jsonl")), row)
    assert bool(samples) != bool(flaws)
