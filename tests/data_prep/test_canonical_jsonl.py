"""The reader: every line becomes a sample or says why not."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sources.canonical_jsonl import CanonicalJsonl
from lensmith.errors import InputError
from lensmith.sample import Image, Message, Text
from tests.data_prep.canonical import parse_line

GOOD = {
    "id": "a",
    "group": "g",
    "messages": [
        {"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "Read."}]},
        {"role": "assistant", "content": "seven"},
    ],
    "meta": {"desk": 3},
}


def good(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode()


def user(*parts: object) -> list[object]:
    return [{"role": "user", "content": list(parts)}, GOOD["messages"][1]]


def test_reads_parts_and_plain_text() -> None:
    line = parse_line(good(), "labels.jsonl:4")
    assert line.flaws == ()
    assert line.sample is not None
    assert (line.place, line.row, line.sample.group, line.sample.meta) == (
        "labels.jsonl:4",
        "a",
        "g",
        {"desk": 3},
    )
    assert line.sample.messages == (
        Message("user", (Image("a.png"), Text("Read."))),
        Message("assistant", (Text("seven"),)),
    )


@pytest.mark.parametrize(
    ("raw", "code", "said"),
    [
        (b'{"id": "\xff"}', "not_utf8", "byte 9"),
        (good(meta={"x": "\ud800"}), "not_utf8", "half a character"),
        (good()[:-20], "not_json", "at character"),
        (b'{"id": 1, "id": 2}', "not_json", "'id' is given twice"),
        (b'{"id": NaN}', "not_json", "NaN is not a JSON number"),
        (b"[" * 100_000, "not_json", "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not_json", "digits"),
        (b"[1, 2]", "schema", "the row: input should be"),
        (b"null", "schema", "the row"),
        (good(id=""), "schema", "id is empty"),
        (good(id=7), "schema", "id: input should be a valid string"),
        (good(id="a\x1b[31m"), "schema", "control characters"),
        (good(group="  "), "schema", "group is empty"),
        (good(grup="x"), "schema", "grup is not a known field"),
        (good(meta=[]), "schema", "meta"),
        (good(messages="hello"), "schema", "messages"),
        (good(messages=[{"role": "human", "content": "x"}]), "schema", "messages[0].role"),
        (
            good(messages=user({"type": "image", "url": "x"})),
            "schema",
            "messages[0].content[0].path is missing",
        ),
        (good(messages=user({"type": "text", "text": 5})), "schema", "messages[0].content[0].text: input"),
        (good(messages=user({"type": "audio", "path": "x"})), "schema", "no known part"),
        (good(messages=user({"path": "x"})), "schema", "no known part"),
        (good(messages=user("x")), "schema", "messages[0].content[0]"),
    ],
)
def test_says_what_is_wrong(raw: bytes, code: str, said: str) -> None:
    line = parse_line(raw, "x:1")
    assert line.sample is None
    assert [flaw.code for flaw in line.flaws].count(code) == len(line.flaws)
    assert any(said in flaw.what for flaw in line.flaws), line.flaws
    assert all(flaw.mend for flaw in line.flaws)


def test_unknown_field_gets_a_suggestion() -> None:
    flaws = parse_line(good(grup="x"), "x:1").flaws
    assert [flaw.mend for flaw in flaws] == ["did you mean 'group'?"]
    part = {"type": "image", "path": "x", "pth": "y"}
    assert [flaw.mend for flaw in parse_line(good(messages=user(part)), "x:1").flaws] == [
        "did you mean 'path'?"
    ]


def test_all_flaws_of_a_row_at_once() -> None:
    row = {"id": 5, "messages": [{"role": "user", "content": [{"type": "image"}]}], "extra": 1}
    said = [flaw.what for flaw in parse_line(json.dumps(row).encode(), "x:1").flaws]
    assert len(said) == 4
    assert {text.split()[0].rstrip(":") for text in said} == {
        "id",
        "group",
        "extra",
        "messages[0].content[0].path",
    }


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    line = parse_line(raw, "x:1")
    assert (line.sample is None) == bool(line.flaws)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["id", "group", "messages", "meta", "more"]), _JSON))
def test_no_json_breaks_the_reader(changes: dict[str, object]) -> None:
    line = parse_line(json.dumps(GOOD | changes).encode(), "x:1")
    assert (line.sample is None) == bool(line.flaws)


def test_mark_blank_lines_and_carriage_returns_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + good(id="1") + b"\r\n\r\n  \n" + good(id="2") + b"\nbroken\n" + good(id="3")
    )
    source = CanonicalJsonl(path)
    assert [(found.place, found.row, found.sample is not None) for found in source.rows()] == [
        ("labels.jsonl:1", "1", True),
        ("labels.jsonl:4", "2", True),
        ("labels.jsonl:5", "", False),
        ("labels.jsonl:6", "3", True),
    ]
    assert source.facts() == {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
    }


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CanonicalJsonl, "max_row_bytes", 500)
    path = tmp_path / "labels.jsonl"
    path.write_bytes(good() + b"\n" + good(meta={"x": "y" * 600}) + b"\n" + good() + b"\n")
    lines = list(CanonicalJsonl(path).rows())
    assert [line.sample is not None for line in lines] == [True, False, True]
    assert "bytes in one row" in lines[1].flaws[0].what


def test_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes("é".encode("utf-16"))
    with pytest.raises(InputError, match="is UTF-16 text"):
        list(CanonicalJsonl(path).rows())


def test_nesting_at_the_parser_s_limit_stops_no_reader() -> None:
    """What can just be parsed can also be looked through for half characters."""
    limit = sys.getrecursionlimit()
    ends = set()
    for depth in range(limit // 2, limit + 10):
        meta = b"[" * depth + b'"\\u0041"' + b"]" * depth
        line = parse_line(good().replace(b'{"desk": 3}', b'{"x": ' + meta + b"}"), 1)
        ends.add(line.flaws[0].what if line.flaws else "taken")
    assert "nested too deeply" in ends
