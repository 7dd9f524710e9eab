"""Which repetitions are refused, and that the first row is always the one kept."""

from __future__ import annotations

from data_prep.duplicates import Duplicates
from lensmith.sample import Image, Message, Sample, Text


def sample(row: str, group: str, digest: str, question: str = "Read.", answer: str = "7") -> Sample:
    asked = Message("user", (Image(f"{row}.png", digest), Text(question)))
    return Sample(row, group, (asked, Message("assistant", (Text(answer),))))


def codes(taken: Sample, later: Sample) -> list[str]:
    seen = Duplicates()
    assert list(seen.flaws(taken)) == []
    seen.add(taken, 3)
    flaws = list(seen.flaws(later))
    assert all("'a' (line 3)" in flaw.what for flaw in flaws)
    return [flaw.code for flaw in flaws]


FIRST = sample("a", "g", "d1")


def test_within_a_group() -> None:
    assert codes(FIRST, FIRST) == ["duplicate_row"]
    assert codes(FIRST, sample("b", "g", "d1")) == ["duplicate_row"]
    assert codes(FIRST, sample("b", "g", "d1", answer="8")) == ["contradiction"]
    assert codes(FIRST, sample("b", "g", "d1", question="How many?")) == []
    assert codes(FIRST, sample("b", "g", "d2")) == []


def test_across_groups() -> None:
    assert codes(FIRST, sample("b", "h", "d1")) == ["image_across_groups"]
    assert codes(FIRST, sample("b", "h", "d1", question="How many?")) == ["image_across_groups"]
    assert codes(FIRST, sample("b", "h", "d2")) == []


def test_ids() -> None:
    assert codes(FIRST, sample("a", "g", "d2")) == ["duplicate_id"]
    assert codes(FIRST, sample("a", "h", "d1")) == ["duplicate_id", "image_across_groups"]


def test_the_second_image_counts_too() -> None:
    two = Message("user", (Image("x.png", "d0"), Image("y.png", "d1")))
    later = Sample("b", "h", (two, Message("assistant", (Text("7"),))))
    assert codes(FIRST, later) == ["image_across_groups"]


def test_only_rows_taken_are_compared_and_undecoded_images_are_not() -> None:
    seen = Duplicates()
    assert list(seen.flaws(FIRST)) == []
    assert list(seen.flaws(FIRST)) == []
    seen.add(FIRST, 3)
    assert list(seen.flaws(sample("b", "h", ""))) == []
    assert list(seen.flaws(sample("c", "g", ""))) == []
