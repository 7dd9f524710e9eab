"""Who may read which rows, and the log of who read the exam."""

from __future__ import annotations

import json

import pytest

from lensmith.artifact import Artifact
from lensmith.dataset import HELD_OUT_FILE, read_held_out, read_split, split_file
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image, Message, Sample, Text


def row(number: int, images: int = 1) -> Row:
    parts = (
        *(Image(f"{number}-{at}.png", f"d{at}", (8, 8)) for at in range(images)),
        Text("Lies das, bitte: é 漢 \0"),
    )
    sample = Sample(
        f"row-{number}",
        f"group-{number % 3}",
        (Message("user", parts), Message("assistant", (Text('{"n": 1}'),))),
        {"desk": number, "nested": {"a": [1, None, "ü"]}},
    )
    return Row(sample, tuple(b"\x89PNG" + bytes([at]) for at in range(images)))


def held_out(home: Home, rows: int = 3) -> Artifact:
    with home.create("held_out", "a" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, (row(number) for number in range(rows)))
    return draft.artifact


def test_splits_are_read_from_datasets_only(home: Home) -> None:
    with home.create("dataset", "b" * 64, {}) as draft:
        write_rows(draft.path / split_file("train"), [row(1)])
    assert list(read_split(draft.artifact, "train")) == [row(1)]
    with pytest.raises(InputError, match="is not a dataset"):
        read_split(held_out(home), "train")


def test_every_read_of_the_exam_is_logged_before_it_happens(home: Home) -> None:
    exam = held_out(home)
    log = home.root / "held_out_reads.jsonl"
    rows = read_held_out(home, exam, "evaluate run 7")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(entry["held_out"], entry["reason"]) for entry in entries] == [(exam.id, "evaluate run 7")]
    assert len(list(rows)) == 3
    read_held_out(home, exam, "look again")
    assert len(log.read_text().splitlines()) == 2


def test_the_exam_is_not_read_without_a_reason(home: Home) -> None:
    exam = held_out(home)
    with pytest.raises(InputError, match="stated reason"):
        read_held_out(home, exam, "  ")
    with home.create("dataset", "c" * 64, {}) as draft:
        draft.body.update(rows={})
    with pytest.raises(InputError, match="is not a held-out set"):
        read_held_out(home, draft.artifact, "by mistake")
    assert not (home.root / "held_out_reads.jsonl").exists()
