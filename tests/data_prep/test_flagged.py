"""Flagged rows as files, and records in general."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from data_prep.flag import FLAG_CODES, FLAG_TITLES, Flag, Flagged
from data_prep.reasons import FLAGGED, REFUSED
from data_prep.record_files import write_records
from data_prep.refusal import CODES, TITLES
from data_prep.refusals_file import COLUMNS, FLAGGED_CSV, FLAGGED_JSONL, write_flagged

DOCS = Path(__file__).resolve().parent.parent.parent / "docs/reference/reasons.md"


def test_every_reason_has_a_title() -> None:
    assert set(FLAG_TITLES) == set(FLAG_CODES)
    assert set(TITLES) == set(CODES)
    assert set(REFUSED) == set(CODES)
    assert set(FLAGGED) == set(FLAG_CODES)


@pytest.mark.parametrize("code", [*CODES, *FLAG_CODES])
def test_every_reason_is_in_the_reference(code: str) -> None:
    assert f"`{code}`" in DOCS.read_text(encoding="utf-8")


def test_a_record_a_flag_with_the_columns_of_refused_rows(tmp_path: Path) -> None:
    flags = (Flag("outer_space", "the answer is '7 '", "remove it"), Flag("long_answer", "=1+1", "-"))
    write_flagged(tmp_path, [Flagged("labels.jsonl:3", "@row", flags)])
    with (tmp_path / FLAGGED_CSV).open(encoding="utf-8-sig", newline="") as stream:
        table = list(csv.reader(stream))
    assert tuple(table[0]) == COLUMNS
    assert [row[2] for row in table[1:]] == ["outer_space", "long_answer"]
    assert {row[1] for row in table[1:]} == {"'@row"}
    assert table[2][4] == "'-"
    lines = [json.loads(line) for line in (tmp_path / FLAGGED_JSONL).read_text().splitlines()]
    assert [line["row"] for line in lines] == ["@row", "@row"]


def test_what_a_row_of_the_exam_says_is_not_told(tmp_path: Path) -> None:
    flags = (Flag("outer_space", "the answer is '7 '", "remove it"),)
    write_flagged(tmp_path, [Flagged("labels.jsonl:3", "row", flags, sealed=True)])
    (line,) = (tmp_path / FLAGGED_JSONL).read_text().splitlines()
    assert json.loads(line) == {
        "place": "labels.jsonl:3",
        "row": "row",
        "code": "outer_space",
        "reason": f"{FLAG_TITLES['outer_space']}: a row of the exam, which stays sealed",
        "mend": "remove it",
    }


def test_nothing_is_left_behind_when_a_record_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write_records(tmp_path, "x", ("a", "b"), [(1, 2), (3,)])
    assert list(tmp_path.iterdir()) == []


def test_half_a_pair_of_surrogates_is_written_as_its_escape(tmp_path: Path) -> None:
    assert write_records(tmp_path, "x", ("a",), [("\ud800",)]) == 1
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {"a": "\ud800"}
    assert "\\ud800" in (tmp_path / "x.csv").read_text(encoding="utf-8-sig")


def test_the_files_are_written_record_by_record(tmp_path: Path) -> None:
    seen: list[int] = []

    def records():
        for number in range(3):
            seen.append(number)
            yield (number,)

    assert write_records(tmp_path, "x", ("n",), records()) == 3
    assert seen == [0, 1, 2]
