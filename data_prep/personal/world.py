"""National identification numbers of the Americas and Asia."""

from __future__ import annotations

import re

from data_prep.personal.apart import GAP, apart, broken, digits_apart, misread
from data_prep.personal.checksums import is_date, verhoeff, weighted
from data_prep.personal.context import words
from data_prep.personal.detector import END, START, Detector, Loose, always, pattern, plain, separated, whole


def _is_ssn(found: str) -> bool:
    """Social Security Administration, "Social Security Number Randomization": areas 000, 666 and from 900 on,
    group 00 and serial 0000 are never given out."""
    digits = plain(found)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


US_SSN = Detector(
    "us_ssn",
    "a US social security number",
    "[national id]",
    # What goes on with a hyphen and a letter is a longer code.
    re.compile(rf"{START}[0-9]{{3}}([ -]?)[0-9]{{2}}\1[0-9]{{4}}{END}(?!-[A-Za-z])"),
    9,
    whole(_is_ssn),
    lambda found: "-" in found,
    words(r"ssn", r"social[\s_-]sec(?:urity|\.)?", r"soc\.? sec", r"ss#", r"seguro[\s_]social"),
    loose=Loose(
        apart(f"(?:[0-9]{{3}}{GAP}[0-9]{{2}}{GAP}[0-9]{{4}}|[0-9](?: [0-9]){{8}})"), (9,), whole(_is_ssn)
    ),
)


def _is_cpf(found: str) -> bool:
    """Receita Federal: two check digits mod 11; eleven equal digits pass and are not given out."""
    digits = plain(found)
    first = weighted(digits[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(digits[:10], range(11, 1, -1)) * 10 % 11 % 10
    return digits[9:] == f"{first}{second}" and len(set(digits)) > 1


def _printed_on_two_lines(found: str) -> bool:
    """With the signs of its printed form."""
    return broken(found) and found.count(".") == 2 and "-" in found


BR_CPF = Detector(
    "br_cpf",
    "a Brazilian taxpayer number (CPF)",
    "[national id]",
    pattern(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[0-9]{9}-?[0-9]{2}"),
    11,
    whole(_is_cpf),
    separated,
    words(r"cpf", r"cpf[\s_/]?mf", r"cadastro[\s_]de[\s_]pessoas?[\s_]f[íi]sicas?"),
    loose=Loose(digits_apart(11), (11,), misread(whole(_is_cpf)), _printed_on_two_lines),
)


def _is_aadhaar(found: str) -> bool:
    """UIDAI: the last digit is Verhoeff's check; a number that reads the same backwards is not given out."""
    digits = plain(found)
    return digits[0] > "1" and verhoeff(digits) and digits != digits[::-1]


IN_AADHAAR = Detector(
    "in_aadhaar",
    "an Indian Aadhaar number",
    "[national id]",
    re.compile(rf"{START}(?<![0-9] )[2-9][0-9]{{3}}([ -]?)[0-9]{{4}}\1[0-9]{{4}}{END}(?! [0-9])"),
    12,
    whole(_is_aadhaar),
    separated,
    words(r"aadh?aa?r", r"uid(?:ai)?", r"adhar", "आधार"),
    loose=Loose(digits_apart(12, "[2-9]"), (12,), misread(whole(_is_aadhaar))),
)


def _is_resident_id(found: str) -> bool:
    """GB 11643-1999: region, date of birth, order, check by ISO 7064 mod 11-2."""
    text = plain(found)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    born = is_date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    return born and "10X98765432"[weighted(text[:17], weights) % 11] == text[17]


def _region_day_order(found: str) -> bool:
    """With the same sign between its three parts, or on two lines."""
    return broken(found) or bool(re.fullmatch(r"[0-9]{6}([ -])[0-9]{8}\1[0-9]{3}[0-9Xx]", found))


CN_RESIDENT_ID = Detector(
    "cn_resident_id",
    "a Chinese resident identity number",
    "[national id]",
    pattern(r"[1-8][0-9]{5}(?:18|19|20)[0-9]{9}[0-9Xx]"),
    17,
    whole(_is_resident_id),
    always,
    words(
        r"resident\s(?:identity|id)(?:\scard)?", r"id[\s_]?card", r"identity\scard",
        anywhere=("身份", "身分", "证件"),
    ),
    loose=Loose(digits_apart(18, "[1-8]", "[0-9Xx]"), (17, 18), whole(_is_resident_id), _region_day_order),
)  # fmt: skip

WORLD = (US_SSN, BR_CPF, IN_AADHAAR, CN_RESIDENT_ID)
