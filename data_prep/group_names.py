"""Groups whose names differ only as people differ in typing: two groups, perhaps in two splits, or one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from data_prep.flag import Flag
from data_prep.refusal import quoted
from data_prep.workbook import Workbook

_MEND = "write one name if it is one group: rows of one group are never split apart"


def flag_spellings(book: Workbook, previous: Iterable[str]) -> None:
    """Flag the first taken row of each group that is spelled almost like another, one of an earlier row or of
    the groups `previous` of the dataset before.

    Whoever names groups in a code that tells capitals apart is right to have both: they are not joined.
    """
    names: dict[str, str] = {}
    for name in previous:
        names.setdefault(_folded(name), name)
    told: set[str] = set()
    numbers, _, groups = book.taken()
    for number, name in zip(numbers, groups, strict=True):
        other = names.setdefault(_folded(name), name)
        if other != name and name not in told:
            told.add(name)
            what = (
                f"the groups {quoted(name)} and {quoted(other)} differ only in capitals, spaces, the Unicode"
                " form of a letter or characters that nobody sees"
            )
            book.add_flag(number, Flag("group_spelling", what, _MEND))


def _folded(name: str) -> str:
    """The name without what people type now one way, now the other, or cannot see."""
    if not name.isascii():
        # Unicode Standard 16, 3.13.5: a compatibility caseless match; Cf is what has no shape of its own.
        name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name.casefold()).casefold())
        name = "".join(char for char in name if unicodedata.category(char) != "Cf")
    return " ".join(name.casefold().split())
