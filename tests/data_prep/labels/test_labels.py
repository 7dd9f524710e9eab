"""Labellings, items, adjudication and what is exported for review."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_prep.labels.adjudication import adjudicate, differing_fields
from data_prep.labels.disagreements import COLUMNS, Disagreement, write_disagreements
from data_prep.labels.label import Label, fields_of, item_of
from data_prep.labels.labelling import Labelling, parse_time, read_labelling
from data_prep.refusal import Flaw
from lensmith.data_settings import Labels
from lensmith.sample import Image, Message, Origin, Sample, Text

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-31", "2026-05-31T00:00:00+00:00"),
        ("2026-05-31T14:30:00", "2026-05-31T14:30:00+00:00"),
        ("2026-05-31T14:30:00+02:00", "2026-05-31T14:30:00+02:00"),
        ("2026-05-31T14:30:00Z", "2026-05-31T14:30:00+00:00"),
        ("31.05.2026", None),
        ("2026-02-30", None),
        ("yesterday", None),
        ("1700000000", None),
    ],
)
def test_times(text: str, expected: str | None) -> None:
    when = parse_time(text)
    assert (when and when.isoformat()) == expected


@pytest.mark.parametrize(
    ("origin", "named", "what"),
    [
        (Origin(), False, None),
        (Origin(labeller="ann", labelled_at="2026-05-31"), True, None),
        (Origin(labelled_at="31.5.2026"), False, "which is no time"),
        (Origin(labelled_at="2027-01-01"), False, "in the future"),
        (Origin(labelled_at="2026-01-01"), True, "nobody is named"),
        (Origin(labeller="ann"), True, "labelled_at is missing"),
    ],
)
def test_who_labelled_and_when(origin: Origin, named: bool, what: str | None) -> None:
    read = read_labelling(origin, named, NOW)
    if what is None:
        assert isinstance(read, Labelling)
    else:
        assert isinstance(read, Flaw)
        assert read.code == "labelling"
        assert what in read.what


def label(labeller: str, answer: str, day: int | None = 1, line: int = 1) -> Label:
    when = datetime(2026, 1, day, tzinfo=UTC) if day else None
    return Label(f"r{line}", f"labels.jsonl:{line}", Labelling(labeller, "v1", when), answer, "a.png")


A, B = '{"n": 1}', '{"n": 2}'


@pytest.mark.parametrize(
    ("labels", "rule", "taken"),
    [
        ([("ann", A, 1), ("bob", A, 2)], "refuse", "ann"),
        ([("ann", A, 1), ("bob", ' {"n":1}', 2)], "refuse", "ann"),
        ([("ann", A, 1), ("bob", B, 2)], "refuse", None),
        ([("ann", A, 1), ("bob", B, 2), ("cid", B, 3)], "majority", "bob"),
        ([("ann", A, 1), ("bob", B, 2)], "majority", None),
        ([("ann", A, 1), ("bob", B, 2), ("cid", '{"n": 3}', 3)], "majority", None),
        ([("ann", A, 3), ("bob", B, 2)], "latest", "ann"),
        ([("ann", A, 3), ("bob", B, 3)], "latest", None),
        ([("ann", A, 3), ("bob", B, None)], "latest", None),
        ([("ann", A, 1), ("bob", B, 2)], "labeller: bob", "bob"),
        ([("ann", A, 1), ("bob", B, 2)], "labeller:bob", "bob"),
        ([("ann", A, 1), ("bob", B, 2)], "labeller: eve", None),
        ([("ann", A, 1), ("bob", B, 2), ("bob", A, 3)], "labeller: bob", None),
    ],
)
def test_rules(labels: list[tuple[str, str, int | None]], rule: str, taken: str | None) -> None:
    made = [label(name, answer, day, line) for line, (name, answer, day) in enumerate(labels, start=1)]
    verdict = adjudicate(made, rule)
    assert (verdict.taken and verdict.taken.labelling.labeller) == taken
    assert verdict.taken is None or verdict.taken in made
    if taken is None:
        assert verdict.flaw is not None
        assert verdict.flaw.code == "labels_disagree"
        assert verdict.flag is None
    elif verdict.differing:
        assert verdict.flag is not None
        assert verdict.flag.code == "labels_differ"
        assert f"'{verdict.taken.row if verdict.taken else ''}' is taken" in verdict.flag.what
    else:
        assert verdict.flag is None


def test_fields() -> None:
    nested = '{"a": {"b": 1, "c": {}}, "d": [2, {"e": 3}], "f": null}'
    assert fields_of(nested) == {"a.b": 1, "a.c": "{}", "d": '[2, {"e": 3}]', "f": None}
    assert fields_of(" a cat ") == {"answer": "a cat"}
    assert fields_of("[1]") == {"answer": "[1]"}


def test_differing_fields_and_missing_ones() -> None:
    labels = [label("ann", '{"a": 1, "b": 2, "c": null}'), label("bob", '{"a": 1, "b": 3}')]
    assert differing_fields(labels) == ("b", "c")
    assert differing_fields([label("ann", '{"a": 1}'), label("bob", '{"a": true}')]) == ("a",)


def sample(question: str, digest: str, meta: dict[str, Any], path: str = "a.png") -> Sample:
    asked = Message("user", (Image(path, digest), Text(question)))
    return Sample("a", "g", (asked, Message("assistant", (Text("7"),))), meta)


def test_items() -> None:
    assert item_of(sample("q", "d", {"item": "x-1"}), "item") == "x-1"
    assert item_of(sample("q", "d", {"item": 7}), "item") == "7"
    assert item_of(sample("q", "d", {"item": ["x"]}), "item") == ""
    assert item_of(sample("q", "d", {"item": "x"}), "none") == ""
    same = item_of(sample("q", "d", {}, "a.png"), "question")
    assert same == item_of(sample("q", "d", {}, "b.png"), "question")
    assert same != item_of(sample("q", "e", {}), "question")
    assert same != item_of(sample("p", "d", {}), "question")


def test_disagreements_are_exported_for_review(tmp_path: Path) -> None:
    labels = (label("=ann", '{"n": 1, "m": 5}', 1, 1), label("bob", '{"n": 2, "m": 5}', 2, 2))
    found = Disagreement("item-1", labels, adjudicate(labels, "latest"))
    assert write_disagreements(tmp_path, [found]) == 2
    with (tmp_path / "disagreements.csv").open(encoding="utf-8-sig", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert tuple(table[0]) == COLUMNS
    assert [(each["field"], each["labeller"], each["label"], each["taken"]) for each in table] == [
        ("n", "'=ann", "1", "False"),
        ("n", "bob", "2", "True"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "disagreements.jsonl").read_text().splitlines()]
    assert lines[0]["labeller"] == "=ann"
    sealed = Disagreement("item-1", labels, found.verdict, sealed=True)
    assert write_disagreements(tmp_path, [sealed]) == 2
    lines = [json.loads(line) for line in (tmp_path / "disagreements.jsonl").read_text().splitlines()]
    assert {line.pop("label") for line in lines} == {"a row of the exam, which stays sealed"}
    assert lines[0]["labeller"] == "=ann"


def test_settings() -> None:
    for rule in ("majority", "latest", "refuse", "labeller: ann", "labeller:ann b"):
        assert Labels(rule=rule).rule == rule
    for rule in ("best", "labeller:", "labeller: "):
        with pytest.raises(ValidationError):
            Labels(rule=rule)
