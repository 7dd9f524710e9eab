"""All detectors over one text; a text that holds no candidate costs two scans."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from data_prep.personal.context import is_glued
from data_prep.personal.detector import Detector, Span
from data_prep.personal.email import EMAIL, has_address
from data_prep.personal.europe import EUROPE
from data_prep.personal.payment import CARD, IBAN
from data_prep.personal.phone import phone
from data_prep.personal.world import WORLD
from lensmith.data_settings import REGIONS, DetectorName

# Digits with at most three separators from one to the next: what all but two of the kinds are made of.
_RUN = re.compile(r"[0-9](?:[ .\-/()+]{0,3}[0-9]){5,}")
# The same pulled apart by a scan or the end of a line, letters read for digits among them.
_LOOSE_RUN = re.compile(r"[0-9](?:[ .\-/()+\r\n]{0,6}(?:[0-9]|[OoIl](?![A-Za-z]))){5,}")
_DAY = re.compile(r"(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]")
_SEPARATORS = str.maketrans("", "", " .-/()+\r\n")
# The year, month, day and place of an Italian tax code, and the same with every character apart: rarer in
# ordinary words than its six letters before.
_CF_DIGIT, _CF_GAP = "[0-9LMNPQRSTUVlmnpqrstuv]", r"[ \-\r\n]{0,6}"
_CODE = re.compile(
    rf"{_CF_DIGIT}{_CF_DIGIT}{_CF_GAP}[A-Ta-t]{_CF_GAP}{_CF_DIGIT}{{2}}{_CF_GAP}[A-Za-z]{_CF_GAP}{_CF_DIGIT}"
)
_CODE_BOXES = re.compile(rf"{_CF_DIGIT} {_CF_DIGIT} [A-Ta-t] {_CF_DIGIT} {_CF_DIGIT} ")


def detectors(regions: Sequence[str] = REGIONS) -> tuple[Detector, ...]:
    """All detectors, the stronger evidence first: what one found, a later one does not find again."""
    return (EMAIL, IBAN, CARD, *WORLD, *EUROPE, phone(regions))


class _Marks(NamedTuple):
    """What a text has that could be personal.

    The longest row of digits, the lengths of rows that may be pulled apart, those of rows in one piece,
    whether there is an @ or what stands for it, and whether there is what looks like an Italian tax code.
    """

    digits: int
    apart: set[int]
    pieces: set[int]
    address: bool
    code: bool


class Finder:
    """Finds personal data of the kinds in `wanted` (all where None) in texts."""

    def __init__(
        self, regions: Sequence[str] = REGIONS, wanted: frozenset[DetectorName] | None = None
    ) -> None:
        self.detectors = tuple(each for each in detectors(regions) if wanted is None or each.name in wanted)
        self._loose = tuple((each, each.loose) for each in self.detectors if each.loose is not None)

    def find(self, text: str, before: str = "") -> list[Span]:
        """What is personal in `text`, in order, none overlapping; `before` is the text in front of it."""
        if not text.isascii():
            text = text.translate(_PLAIN)
        marks = _marks(text)
        if marks is None:
            return []
        spans: list[Span] = []
        taken = bytearray()
        for found in self._found(text, before, marks):
            taken = taken or bytearray(len(text))
            if taken.find(1, found.start, found.end) < 0:
                spans.append(found)
                taken[found.start : found.end] = b"\1" * (found.end - found.start)
        return sorted(spans, key=lambda span: span.start)

    def _found(self, text: str, before: str, marks: _Marks) -> Iterator[Span]:
        """The stronger evidence first: numbers as they are printed, those pulled apart, telephone numbers."""
        calls: list[Detector] = []
        for each in self.detectors:
            # Without digits in a row there is only the e-mail address's @ and the tax code's letters.
            if each.digits > marks.digits or (
                not each.digits and not (marks.address if each.name == "email" else marks.code)
            ):
                continue
            if each.name == "phone":
                calls.append(each)
            else:
                yield from each.spans(text, before)
        if marks.apart or marks.pieces or marks.code:
            # The end of a telephone number may be one itself: the wider form goes first.
            for each, loose in self._loose:
                if (
                    not marks.apart.isdisjoint(loose.digits)
                    or not marks.pieces.isdisjoint(loose.in_one_piece)
                    or (marks.code and not each.digits)
                ):
                    yield from each.loose_spans(text, before)
        for each in calls:
            yield from each.spans(text, before)

    def may_hold(self, text: str) -> bool:
        """Whether `find` could find anything in `text` or in a part of it; cheap."""
        return _marks(text if text.isascii() else text.translate(_PLAIN)) is not None


def _marks(text: str) -> _Marks | None:
    """None where nothing in it could be personal."""
    digits, apart, pieces = 0, set[int](), set[int]()
    for found in _LOOSE_RUN.finditer(text):
        run = found.group()
        if run.isdigit():
            digits = max(digits, len(run))
            # Else it is as printed, but for a word that stands before it without a space.
            (apart if is_glued(text, found.start()) else pieces).add(len(run))
        elif not _DAY.fullmatch(run):
            digits = max(digits, _longest(run))
            apart |= _lengths(run)
    address = has_address(text)
    code = bool(_CODE.search(text) or (" " in text and _CODE_BOXES.search(text)))
    if digits or apart or address or code:
        return _Marks(digits, apart, pieces, address, code)
    return None


def _longest(run: str) -> int:
    rows = (row for row in _RUN.findall(run) if not _DAY.fullmatch(row))
    return max((len(row.translate(_SEPARATORS)) for row in rows), default=0)


def _lengths(run: str) -> set[int]:
    """Digits of each of its lines, and of any two and three in a row."""
    if "\n" not in run:
        return {len(run.translate(_SEPARATORS))}
    lines = [len(line.translate(_SEPARATORS)) for line in run.split("\n")]
    return {sum(lines[at : at + count]) for at in range(len(lines)) for count in (1, 2, 3)}


class _Plain(dict[int, int]):
    """Characters as ASCII writes them, one for one: all scripts' digits, spaces, dashes, full-width forms."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        kind = unicodedata.category(char)
        if kind == "Nd":
            plain = ord("0") + unicodedata.decimal(char)
        elif kind == "Zs":
            plain = ord(" ")
        elif kind == "Pd":
            plain = ord("-")
        else:
            plain = code - 0xFEE0 if 0xFF01 <= code <= 0xFF5E else code
        self[code] = plain
        return plain


_PLAIN = _Plain()
