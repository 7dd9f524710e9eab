"""A detector: one kind of personal data, by pattern, checksum and the words around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_prep.personal.context import (
    is_glued,
    is_in_a_column,
    is_joined,
    is_named,
    is_named_closely,
    is_something_else,
)
from lensmith.data_settings import DetectorName

# A number does not begin or end inside a longer code, a decimal or a date.
START = r"(?<![A-Za-z0-9_])(?<![0-9][.,/-])"
END = r"(?![A-Za-z0-9_])(?![.,/-][0-9])"


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a text are of this kind."""

    kind: DetectorName
    start: int
    end: int


def always(found: str) -> bool:
    """Nothing else is asked of what was found."""
    return bool(found)


def never(found: str) -> bool:
    """No form is telling enough."""
    return not found and bool(found)


def nothing_else(text: str, before: str, start: int, end: int) -> bool:
    """What is found is hardly anything else."""
    return False


@dataclass(frozen=True)
class Loose:
    """How a number stands where a scan or the end of a line pulled it apart.

    A match of `pattern` counts when `measure` gives its length and either `sure` says that its form and its
    check digits leave no doubt, or one of the detector's words stands near with no other digit between.
    `digits`: how many digits it may have in a row, gaps aside, and `in_one_piece` without any gap between
    them, where a letter may stand apart or digits be left out; texts without such a row are skipped.
    """

    pattern: re.Pattern[str]
    digits: tuple[int, ...]
    measure: Callable[[str], int]
    sure: Callable[[str], bool] = never
    in_one_piece: tuple[int, ...] = ()


@dataclass(frozen=True)
class Detector:
    """One kind of personal data.

    `title` is what people call it, `placeholder` what takes its place. A match of `pattern` counts when
    `measure` gives the length of the part that is one (0: none), and either `alone` says that its form is
    telling enough, or one of `words` stands near, or it is joined to one before it by a comma or an "and",
    and `confirm`, which may be costly, agrees. `digits` is the number of digits, separators aside, that every
    match has in a row: texts without as many are skipped. It is none where `instead`, by the text, the text
    before it, start and end, says that it is something else.
    """

    name: DetectorName
    title: str
    placeholder: str
    pattern: re.Pattern[str]
    digits: int
    measure: Callable[[str], int]
    alone: Callable[[str], bool]
    words: re.Pattern[str] | None = None
    confirm: Callable[[str], bool] = always
    loose: Loose | None = None
    instead: Callable[[str, str, int, int], bool] = is_something_else

    def spans(self, text: str, before: str) -> Iterator[Span]:
        """What is found in `text`; `before` is the text in front of it, which may name it."""
        last = -1

        def vouched(found: str, start: int, end: int) -> bool:
            joined = last >= 0 and is_joined(text, last, start)
            return joined or self.alone(found) or is_named(self.words, text, before, start, end)

        for span in self._search(self.pattern, self.measure, vouched, text, before):
            last = span.end
            yield span

    def loose_spans(self, text: str, before: str) -> Iterator[Span]:
        """What is found in `text` pulled apart, as `loose` says."""
        if self.loose is None:
            return
        sure = self.loose.sure

        def vouched(found: str, start: int, end: int) -> bool:
            table = "\n" in found and is_in_a_column(text, start, end)
            doubtless = sure(found) and not table and not is_glued(text, start)
            return doubtless or is_named_closely(self.words, text, before, start, end)

        yield from self._search(self.loose.pattern, self.loose.measure, vouched, text, before)

    def _search(
        self,
        pattern: re.Pattern[str],
        measure: Callable[[str], int],
        vouched: Callable[[str, int, int], bool],
        text: str,
        before: str,
    ) -> Iterator[Span]:
        at = 0
        while match := pattern.search(text, at):
            start = match.start()
            length = measure(match.group())
            found = match.group()[:length]
            end = start + length
            if (
                length
                and vouched(found, start, end)
                and not self.instead(text, before, start, end)
                and self.confirm(found)
            ):
                yield Span(self.name, start, end)
                at = end
            else:
                at = start + 1


def whole(accepts: Callable[[str], bool]) -> Callable[[str], int]:
    """A `measure` for what is one as a whole or not at all."""
    return lambda found: len(found) if accepts(found) else 0


def plain(found: str) -> str:
    """Letters and digits only, letters upper-case."""
    return "".join(char for char in found if char.isalnum()).upper()


def separated(found: str) -> bool:
    """Whether it is written with separators."""
    return not found.isalnum()


def pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """`text` where no letter or digit touches it."""
    return re.compile(rf"{START}(?:{text}){END}", flags)
