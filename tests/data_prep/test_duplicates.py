"""Which repetitions are refused, and that the first row is always the one kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.judging import judge_rows
from data_prep.refusal import Flaw
from data_prep.seen import Seen
from data_prep.sources.source import Found
from data_prep.workbook import Workbook
from lensmith.sample import Image, Message, Sample, Text


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Workbook]:
    with Workbook(tmp_path / "workbook.sqlite") as book:
        yield book


def sample(row: str, group: str, *pictures: str, question: str = "Read.", answer: str = "7") -> Sample:
    asked = Message("user", (*(Image(picture) for picture in pictures), Text(question)))
    return Sample(row, group, (asked, Message("assistant", (Text(answer),))))


def codes(book: Workbook, *rows: Sample) -> list[list[str]]:
    """What is wrong with each row. Pictures are known by their path up to a dash."""
    book.add(0, book.count(), [Found(f"labels.jsonl:{at}", row.id, row) for at, row in enumerate(rows, 3)])
    known = [(each.number, each.path.split("-")[0].encode()) for each in book.pictures.unseen(100, 0)]
    book.pictures.saw([(number, Seen(8, 8, name, name)) for number, name in known])
    judge_rows(book, {})
    refused = {each.row: each for each in book.refusals()}
    flaws = [refused[row.id].flaws if row.id in refused else () for row in rows]
    first = f"row {rows[0].id!r} (labels.jsonl:3)"
    assert all(first in flaw.what for each in flaws for flaw in each)
    return [[flaw.code for flaw in each] for each in flaws]


FIRST = sample("a", "g", "d1")


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (sample("b", "g", "d1"), ["duplicate_row"]),
        (sample("b", "g", "d1-copy"), ["duplicate_row"]),
        (sample("b", "g", "d1", answer="8"), ["contradiction"]),
        (sample("b", "g", "d1", question="How many?"), []),
        (sample("b", "g", "d2"), []),
        (sample("b", "h", "d1"), ["image_across_groups"]),
        (sample("b", "h", "d1-copy", question="How many?"), ["image_across_groups"]),
        (sample("b", "h", "d2"), []),
        (sample("b", "h", "d0", "d1-copy"), ["image_across_groups"]),
    ],
)
def test_a_later_row(book: Workbook, later: Sample, expected: list[str]) -> None:
    assert codes(book, FIRST, later) == [[], expected]


def test_ids(book: Workbook) -> None:
    found = [Found(f"labels.jsonl:{at}", row.id, row) for at, row in enumerate(
        (FIRST, FIRST, sample("a", "g", "d2"), sample("a", "h", "d1")), 3)]  # fmt: skip
    book.add(0, 0, found)
    book.pictures.saw(
        [
            (each.number, Seen(8, 8, each.path.encode(), each.path.encode()))
            for each in book.pictures.unseen(9, 0)
        ]
    )
    judge_rows(book, {})
    assert [(each.place, [flaw.code for flaw in each.flaws]) for each in book.refusals()] == [
        ("labels.jsonl:4", ["duplicate_row"]),
        ("labels.jsonl:5", ["duplicate_id"]),
        ("labels.jsonl:6", ["duplicate_id", "image_across_groups"]),
    ]


def test_judging_again_decides_the_same(book: Workbook) -> None:
    rows = (FIRST, sample("b", "g", "d1", answer="8"), sample("c", "h", "d1"))
    once = codes(book, *rows)
    book.forget_judgements()
    judge_rows(book, {})
    refused = {each.row: [flaw.code for flaw in each.flaws] for each in book.refusals()}
    assert once == [[], ["contradiction"], ["image_across_groups"]]
    assert refused == {"b": ["contradiction"], "c": ["image_across_groups"]}


def test_pictures_that_were_not_opened_are_not_compared(book: Workbook) -> None:
    missing = Flaw("image_missing", "there is no file", "add it")
    rows = (sample("a", "g", "x"), sample("b", "h", "x"))
    book.add(0, 0, [Found(f"labels.jsonl:{at}", row.id, row) for at, row in enumerate(rows)])
    book.pictures.saw([(each.number, missing) for each in book.pictures.unseen(9, 0)])
    judge_rows(book, {})
    assert [each.flaws for each in book.refusals()] == [(missing,), (missing,)]
