"""Telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import phonenumbers

from data_prep.personal.context import is_something_else, words
from data_prep.personal.detector import Detector, Loose, whole

_CALL = words(
    r"tele?(?:ph|f)[oóôò]n\w*", r"t[ée]l[ée]phone", r"tel[ée]?f?", r"t[ée]l", r"fon", r"ph(?:one)?",
    r"\w*phone", r"call", r"cell", r"cell(?:ulare|ular)", r"mob(?:ile|il|iel|ilnummer)?", r"m[óo]vil", r"fax",
    r"portable", r"handy", r"gsm", r"whats\s?app", r"sms", r"puh(?:elin)?", r"telefax", r"kom[óo]rka",
    r"anruf\w*", r"appel(?:ez|er)?", r"llam\w+", r"chiam\w+", r"bel", r"ring", r"dzwo\w+", r"ligue",
)  # fmt: skip
_CALL_SIGNS = re.compile(rf"{_CALL.pattern}|[☎📞📱]|电话|手机|電話|फ़ोन|फोन|मोबाइल|тел|телефон", re.IGNORECASE)
_BEGIN = r"(?<![A-Za-z0-9_+=#])(?<![0-9][.,/:-])(?<![0-9] )(?<![$€£¥] )(?<![$€£¥])(?:\(?\+|00)?\(?"
_STOP = r"(?![A-Za-z0-9_])(?![.,/:-][0-9])(?! ?[€$£¥%°])(?! (?:EUR|USD|GBP|kg|mm|px|km|[kMG]?Hz)\b)"
_PHONE = re.compile(rf"{_BEGIN}[0-9](?:[ .\-/()]{{0,2}}[0-9]){{6,15}}{_STOP}")
_PULLED_APART = re.compile(
    rf"{_BEGIN}[0-9](?:[ .\-/()]{{0,3}}(?:\r?\n {{0,4}})?[0-9]){{6,15}}{_STOP}(?! [0-9])"
)
# A word to call right before it: enough for what else would be a number of thousands.
_CALL_BEFORE = 16
# The head of a bank account.
_ACCOUNT = re.compile(r"[A-Z]{2}[0-9]{2} [A-Z0-9]{4} \Z")
# Dates, addresses of machines, ISBNs: digits in groups that are no number to call.
_NOT_CALLED = re.compile(
    r"(?:19|20)[0-9]{2}[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:0?[1-9]|[12][0-9]|3[01])(?:[ .].*)?"
    r"|(?:0?[1-9]|[12][0-9]|3[01])[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:19|20)?[0-9]{2}(?: .*)?"
    r"|(?:0?[1-9]|1[0-2])[-./ ](?:0?[1-9]|[12][0-9]|3[01])[-./ ](?:19|20)[0-9]{2}(?: .*)?"
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|97[89][- ].*"
    r"|(?:19|20)[0-9]{2} ?[-/] ?(?:19|20)[0-9]{2}|[0-9]+\.[0-9]+(?: [0-9]+\.[0-9]+)*"
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:[. ][0-9]{3}){2,}")
# Forms that only telephone numbers have: an area in brackets, 0 and groups, three-three-four.
_DIALLED = re.compile(
    r"\(0?[0-9]{2,5}\)[ .-]?[0-9]{2,}(?:[ .\-/][0-9]{2,})*"
    # Two digits of area and seven more, or any area and ten in all; a hyphen once, as before an extension.
    r"|(?=0[1-9][^0-9]|(?:[^0-9]*[0-9]){10})0[1-9][0-9]{0,3}"
    r"(?:(?:[ /]| [/-] )[0-9]{2,8}(?: [0-9]{2,6})*(?:-[0-9]{1,4})?"
    r"|-[0-9]{5,8}|-[0-9]{2,3}(?: [0-9]{2,3}){1,3})"
    r"|0[1-9](?:\.[0-9]{2}){4}"
    r"|(?:1[-. ])?[2-9][0-9]{2}([-.])[2-9][0-9]{2}\1[0-9]{4}"
)


def phone(regions: Sequence[str]) -> Detector:
    """Numbers with + and a country, and the national ones of `regions`, that may exist by the country's plan.

    The plans are those of libphonenumber. A national number counts where its form is one that only telephone
    numbers have, or where a word as "call" or "mobile" stands near.
    """

    def in_a_plan(found: str) -> bool:
        found = " ".join(found.split())
        if found.startswith(("+", "(+", "00")):
            return _valid(f"+{found.lstrip('(+0').replace('(0)', '')}", None)
        return any(_valid(found, region) for region in regions)

    def dialled(found: str) -> bool:
        if found.startswith("00"):
            return " " in found
        return found.startswith(("+", "(+")) or bool(_DIALLED.fullmatch(found))

    def on_a_line_or_two(found: str) -> int:
        """Up to the end of the first line where that is a number already."""
        first, _, rest = found.partition("\n")
        if rest and ("\n" in rest or in_a_plan(first)):
            found = first.rstrip()
        return 0 if _NOT_CALLED.fullmatch(found) else len(found)

    return Detector(
        "phone",
        "a telephone number",
        "[phone]",
        _PHONE,
        7,
        whole(lambda found: not _NOT_CALLED.fullmatch(found) and not _THOUSANDS.fullmatch(found)),
        dialled,
        _CALL_SIGNS,
        in_a_plan,
        Loose(
            _PULLED_APART, tuple(range(7, 18)), on_a_line_or_two, lambda found: found.startswith(("+", "(+"))
        ),
        _is_no_number_to_call,
    )


def _is_no_number_to_call(text: str, before: str, start: int, end: int) -> bool:
    return bool(_ACCOUNT.search(text, max(0, start - 10), start)) or is_something_else(
        text, before, start, end
    )


def _valid(found: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(found, region))
    except phonenumbers.NumberParseException:
        return False
