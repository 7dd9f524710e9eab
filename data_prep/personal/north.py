"""National identification numbers of Sweden, Poland and Finland: each begins with a day of birth."""

from __future__ import annotations

import re

from data_prep.personal.apart import BREAK, LOOSE_END, LOOSE_START, apart, digits_apart, misread
from data_prep.personal.checksums import is_date, luhn, weighted
from data_prep.personal.context import words
from data_prep.personal.detector import Detector, Loose, always, pattern, plain, separated, whole


def _is_personnummer(found: str) -> bool:
    """Skatteverket: day of birth (a coordination number adds 60 to the day), three digits, Luhn."""
    digits = plain(found)[-10:]
    year, month, day = int(digits[:2]), int(digits[2:4]), int(digits[4:6])
    return is_date(2000 + year, month, day - 60 if day > 60 else day) and luhn(digits)


SE_PERSONNUMMER = Detector(
    "se_personnummer",
    "a Swedish personal number",
    "[national id]",
    pattern(r"(?:18|19|20)?[0-9]{2}[01][0-9][0-9]{2}[-+]?[0-9]{4}"),
    10,
    whole(_is_personnummer),
    separated,
    words(r"person(?:nummer|nr)\.?", r"pnr", r"samordningsnummer", r"personal[\s_](?:identity[\s_])?number"),
    loose=Loose(
        apart("(?:18|19|20)?[0-9]{2}", "[01][0-9]", "[0-9]{2}", "[+]?[0-9]{4}"),
        (10, 12),
        whole(_is_personnummer),
    ),
)


def _is_pesel(found: str) -> bool:
    """Ministerstwo Cyfryzacji: the month tells the century (20 is added in the 2000s, 80 in the 1800s)."""
    digits = plain(found)
    year, month, day = int(digits[:2]), int(digits[2:4]), int(digits[4:6])
    century = {0: 1900, 20: 2000, 80: 1800}.get(month // 20 * 20)
    if century is None or not is_date(century + year, month % 20, day):
        return False
    return weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


PL_PESEL = Detector(
    "pl_pesel", "a Polish identity number (PESEL)", "[national id]", pattern(r"[0-9]{11}"), 11,
    whole(_is_pesel), always, words(r"pesel"),
    loose=Loose(digits_apart(11), (11,), misread(whole(_is_pesel))),
)  # fmt: skip

_HETU_CHECK = "0123456789ABCDEFHJKLMNPRSTUVWXY"  # Digi- ja väestötietovirasto: number mod 31


def _is_hetu(found: str) -> bool:
    text = plain(found)
    born = is_date(2000 + int(text[4:6]), int(text[2:4]), int(text[:2]))
    return born and _HETU_CHECK[int(text[:6] + text[-4:-1]) % 31] == text[-1]


FI_HETU = Detector(
    "fi_hetu",
    "a Finnish identity code",
    "[national id]",
    pattern(r"[0-3][0-9][01][0-9]{3}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y]", re.IGNORECASE),
    6,
    whole(_is_hetu),
    always,
    # A day, the sign of a century and one of 31 check characters leave little to chance.
    loose=Loose(
        re.compile(
            rf"{LOOSE_START}[0-3][0-9][01][0-9]{{3}} {{0,2}}[-+A-FU-Y](?: {{1,2}}|{BREAK})"
            rf"[0-9]{{3}}[0-9A-FHJ-NPR-Y]{LOOSE_END}",
            re.I,
        ),
        # A letter between may stand for the century, one after them be the check.
        (6, 9, 10),
        whole(_is_hetu),
        always,
    ),
)

# A Finnish code of digits alone would pass for a Swedish number.
NORTH = (FI_HETU, SE_PERSONNUMMER, PL_PESEL)
