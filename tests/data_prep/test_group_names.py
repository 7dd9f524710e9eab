"""Groups that are spelled almost alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.group_names import flag_spellings
from data_prep.sources.source import Found
from data_prep.workbook import Workbook
from lensmith.sample import Message, Sample, Text

_SAID = (Message("user", (Text("Read."),)), Message("assistant", (Text("7"),)))


def flagged(folder: Path, *groups: str, previous: tuple[str, ...] = ()) -> dict[int, str]:
    """What is said of each row, whose groups these are, in order."""
    with Workbook(folder / "book.sqlite") as book:
        samples = [Sample(str(number), group, _SAID) for number, group in enumerate(groups)]
        book.add(0, 0, [Found(f"a:{each.id}", each.id, each) for each in samples])
        for number, sample in enumerate(samples):
            book.take(number, sample, b"", b"", [])
        # A killed preparation decides again: nothing is said twice.
        for _ in range(2):
            flag_spellings(book, previous)
        return {int(each.row): flag.what for each in book.flagged() for flag in each.flags}


@pytest.mark.parametrize(
    "other",
    ["G4 stra\u00dfe", "g4 STRASSE", "g4  strasse", "g\uff14 strasse", "g4\u00a0strasse", "g4 stras\u200bse"],
)
def test_the_first_row_of_a_group_that_looks_like_another(tmp_path: Path, other: str) -> None:
    found = flagged(tmp_path, "g4 strasse", other, "g5", other)
    assert found.keys() == {1}
    assert found[1].startswith(f"the groups {other!r} and 'g4 strasse' differ only in")


def test_composed_and_decomposed_letters(tmp_path: Path) -> None:
    assert flagged(tmp_path, "caf\u00e9", "cafe\u0301", "cafe").keys() == {1}


def test_groups_of_the_dataset_before_count(tmp_path: Path) -> None:
    assert flagged(tmp_path / "a", "G4", "g5", previous=("g4", "g5")).keys() == {0}
    assert flagged(tmp_path / "b", "G4", "g5") == {}


def test_names_that_differ_in_more_are_left_alone(tmp_path: Path) -> None:
    assert flagged(tmp_path, "g4", "g-4", "g 4", "g04", "\u0434", "d") == {}
