"""Rows with a rejected answer: read, screened as strictly as answers are, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.export import canonical_jsonl, llava, openai_messages, sharegpt
from data_prep.prepare import prepare
from data_prep.screening import Screening
from data_prep.sources.source import Found
from lensmith.dataset import read_split
from lensmith.home import Home
from lensmith.sample import Image, Message, Sample, Text, Thinking, dump_messages, load_messages
from tests.data_prep.canonical import parse_line
from tests.data_prep.export.test_round_trip import ANSWER, ASK, row
from tests.data_prep.folder import Folder

MAIL = "anna@example.com"
BETTER, WORSE = (Text('{"n": 1}'),), (Text("perhaps two"),)


def sample(rejected: tuple[Any, ...] = WORSE) -> Sample:
    asked = Message("user", (Image("a.png"), Text("Read.")))
    return Sample("a", "g", (asked, Message("assistant", BETTER, rejected)))


def screened(folder: Folder, rejected: tuple[Any, ...], **data: Any) -> Found:
    return Screening(folder.recipe(**data)).screen(Found("labels.jsonl:1", "a", sample(rejected)))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "handed")


def test_it_is_read_kept_and_counts_for_nothing_else() -> None:
    content = {
        "id": "a",
        "group": "g",
        "messages": [
            {"role": "user", "content": [{"type": "image", "path": "a.png"}]},
            {"role": "assistant", "content": "7"},
        ],
    }
    for given, parts in (
        ("1", (Text("1"),)),
        ([{"type": "thinking", "text": "hm"}, {"type": "text", "text": "1"}], (Thinking("hm"), Text("1"))),
    ):
        found = parse_line(json.dumps(content | {"rejected": given}).encode(), "labels.jsonl:1").sample
        assert found is not None
        assert found.rejected == parts
        assert found.answer == "7"
        assert found.with_rejected().messages == (found.messages[0], Message("assistant", parts))
        assert load_messages(dump_messages(found.messages)) == found.messages
        assert len(list(found.parts())) == 2


def test_rows_without_one_are_written_as_ever() -> None:
    assert "rejected" not in dump_messages((ASK, ANSWER))


@pytest.mark.parametrize(
    ("rejected", "code", "said"),
    [
        ((Text("a <|image_pad|> b"),), "markup", "holds the text"),
        ((Text("a\u202eb"),), "control_characters", "with its rejected answer: message 2"),
        ((Text(" "),), "empty_answer", "nothing is typed"),
        (BETTER, "schema", "it is the answer itself"),
        ((Image("b.png"), Text("x")), "image_place", "it shows an image"),
    ],
)
def test_what_an_answer_may_not_hold_it_may_not_either(
    folder: Folder, rejected: tuple[Any, ...], code: str, said: str
) -> None:
    found = screened(folder, rejected)
    assert code in [flaw.code for flaw in found.flaws]
    assert any(said in flaw.what and "with its rejected answer" in flaw.what for flaw in found.flaws)


def test_its_form_may_be_what_is_wrong_with_it(folder: Folder) -> None:
    schema = {"inline": {"type": "object", "required": ["n"]}}
    for rejected in (WORSE, (Text('{"m": 1}'),)):
        assert screened(folder, rejected, answer_schema=schema).flaws == ()


def test_personal_data_in_it_is_treated_as_in_the_answer(folder: Folder) -> None:
    rejected = (Text(f"ask {MAIL}"),)
    redacted = screened(folder, rejected, personal={"action": "redact"})
    assert redacted.sample is not None
    assert redacted.sample.rejected == (Text("ask [e-mail]"),)
    assert [flag.code for flag in redacted.flags] == ["redacted"]
    assert [each.code for each in screened(folder, rejected, personal={"action": "refuse"}).flaws] == [
        "personal_data"
    ]


def test_what_the_row_has_without_it_is_told_once(folder: Folder) -> None:
    asked = Message("user", (Image("a.png"), Text(f"Ask {MAIL}.")))
    told = Sample("a", "g", (asked, Message("assistant", BETTER, WORSE)))
    found = Screening(folder.recipe()).screen(Found("labels.jsonl:1", "a", told))
    assert [flag.code for flag in found.flags] == ["personal_data"]


def test_prepared_it_is_in_the_dataset_and_its_export(folder: Folder, home: Home, tmp_path: Path) -> None:
    folder.fill(12)
    folder.lines = [json.dumps(json.loads(line) | {"rejected": "two"}).encode() for line in folder.lines]
    rows = list(read_split(prepare(folder.recipe(), home).dataset, "train"))
    assert {each.sample.rejected for each in rows} == {(Text("two"),)}
    assert canonical_jsonl.write(rows, tmp_path / "out").rows == len(rows)
    lines = (tmp_path / "out/labels.jsonl").read_bytes().splitlines()
    again = [parse_line(line, "labels.jsonl:1").sample for line in lines]
    assert [each and each.rejected for each in again] == [(Text("two"),)] * len(rows)


@pytest.mark.parametrize("write", [llava.write, sharegpt.write, openai_messages.write])
def test_formats_without_a_place_for_it_leave_the_row_out(write: Any, tmp_path: Path) -> None:
    preference = row(ASK, Message("assistant", ANSWER.parts, WORSE))
    written = write([preference], tmp_path / "out")
    assert (written.rows, written.left_out) == (0, {"a rejected answer": 1})
