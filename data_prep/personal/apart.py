"""Numbers that a scan or the end of a line pulled apart: patterns with a gap between any two characters."""

from __future__ import annotations

import re
from collections.abc import Callable

# Between two characters that a scan or the end of a line pulled apart. One way only to match each: a gap is
# read once, whatever follows it.
BREAK = r"(?: {0,2}\r?\n {0,4})?"
GAP = r" {0,2}(?:[-./] {0,2})?(?:\r?\n {0,4})?"
# A whole number, not a part of a longer row of them.
LOOSE_START = r"(?<![0-9_])(?<![0-9][ .,/-])"
LOOSE_END = r"(?![A-Za-z0-9_])(?![.,/-]?[0-9])(?! [0-9])"
# Letters that a scan reads for digits.
_MISREAD = str.maketrans("OoIl", "0011")


def apart(*parts: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern of these parts with a gap between any two."""
    return re.compile(f"{LOOSE_START}(?:{GAP.join(parts)}){LOOSE_END}", flags)


def digits_apart(
    count: int, first: str = "[0-9]", last: str = "[0-9OoIl]", fewer: int = 0
) -> re.Pattern[str]:
    """A pattern of `count` digits, or up to `fewer` less, in groups of any lengths; letters that look like
    digits count."""
    return apart(first, f"(?:[0-9OoIl]{GAP}){{{count - 2 - fewer},{count - 2}}}{last}")


def misread(measure: Callable[[str], int]) -> Callable[[str], int]:
    """`measure` of what was meant where at most two digits were read as letters."""

    def measured(found: str) -> int:
        if sum(char.isalpha() for char in found) > 2:
            return 0
        return measure(found.translate(_MISREAD))

    return measured


def in_boxes(found: str) -> bool:
    """Whether every character stands apart."""
    return bool(re.fullmatch(r"\w(?: \w)+", found))


def broken(found: str) -> bool:
    """Whether it stands on two lines."""
    return found.count("\n") == 1
