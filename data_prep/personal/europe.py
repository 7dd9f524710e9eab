"""National identification numbers of Europe that are issued with check characters.

A bare run of digits with a weak check (one in ten or eleven runs passes) counts only beside a word that
names it; the printed form with its separators, or a check with a date inside, counts alone.
"""

from __future__ import annotations

import re
from collections import Counter

from data_prep.personal.apart import (
    GAP,
    apart,
    broken,
    digits_apart,
    in_boxes,
    misread,
)
from data_prep.personal.checksums import iso7064_mod_11_10, weighted
from data_prep.personal.context import words
from data_prep.personal.detector import (
    Detector,
    Loose,
    always,
    nothing_else,
    pattern,
    plain,
    separated,
    whole,
)
from data_prep.personal.north import NORTH

# HMRC, National Insurance Manual NIM39110: prefixes that are never given out.
_NINO_NEVER = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})


def _is_nino(found: str) -> bool:
    return plain(found)[:2] not in _NINO_NEVER


def _in_pairs_on_two_lines(found: str) -> bool:
    return broken(found) and bool(re.fullmatch(r"[A-Z]{2}(?:\s[0-9]{2}){3}\s[A-D]", found))


UK_NINO = Detector(
    "uk_nino",
    "a UK National Insurance number",
    "[national id]",
    pattern(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[A-D]", re.I),
    6,
    whole(_is_nino),
    lambda found: bool(re.fullmatch(r"[A-Z]{2} [0-9]{2} [0-9]{2} [0-9]{2} [A-D]", found)),
    words(
        r"ni", r"n\.i\.?", r"nino", r"national[\s_-]insurance", r"ni[\s_-]?n(?:umber|o)",
        r"yswiriant\s(?:gwladol|cenedlaethol)", r"pay\s?slip", r"payroll", r"paye", r"hmrc",
    ),
    # Without the last letter, which says only when contributions are due, it is one beside a word.
    loose=Loose(
        apart(
            "[A-CEGHJ-PR-TW-Z] ?[A-CEGHJ-NPR-TW-Z]",
            f"(?:[0-9]{GAP}){{5}}[0-9](?:{GAP}[A-D])?",
            flags=re.I,
        ),
        (6,),
        whole(_is_nino),
        _in_pairs_on_two_lines,
    ),
)  # fmt: skip


def _is_steuer_id(found: str) -> bool:
    """Bundeszentralamt für Steuern: of the first ten digits one comes twice or three times, the rest once."""
    digits = plain(found)
    most = sorted(Counter(digits[:10]).values(), reverse=True)
    thrice_in_a_row = any(digits[at] * 3 == digits[at : at + 3] for at in range(8))
    return most[0] in (2, 3) and most[1] == 1 and not thrice_in_a_row and iso7064_mod_11_10(digits)


DE_STEUER_ID = Detector(
    "de_steuer_id",
    "a German tax number (Steuer-ID)",
    "[national id]",
    pattern(r"[1-9][0-9]([ ]?)[0-9]{3}\1[0-9]{3}\1[0-9]{3}"),
    11,
    whole(_is_steuer_id),
    always,
    words(
        r"\w*steuer\w*", r"st\.?-?id\w*", r"id(?:ent)?-?nr", r"tax\sid\w*", r"tin",
        r"identifikationsnummer", r"finanzamts?",
    ),
    loose=Loose(digits_apart(11, "[1-9]"), (11,), misread(whole(_is_steuer_id)), in_boxes),
)  # fmt: skip


def _is_nir(found: str) -> bool:
    """INSEE: sex, year, month, department (2A, 2B: Corsica), commune, order, key = 97 - number mod 97."""
    text = plain(found)
    month, digits, key = int(text[3:5]), text[:13], text[13:]
    if not (1 <= month <= 12 or 20 <= month <= 42 or 50 <= month <= 99):
        return False
    # Corsica: the letter counts as 0, less one or two millions.
    less = {"2A": 1_000_000, "2B": 2_000_000}.get(digits[5:7], 0)
    number = int(digits.replace("A", "0").replace("B", "0")) - less
    return not key or 97 - number % 97 == int(key)


def _with_key_on_two_lines(found: str) -> bool:
    return broken(found) and len(plain(found)) == 15


FR_NIR = Detector(
    "fr_nir",
    "a French social security number (NIR)",
    "[national id]",
    pattern(r"[1-478][ .-]?[0-9]{2}[ .-]?[0-9]{2}[ .-]?(?:[0-9]{2}|2[ABab])"
             r"[ .-]?[0-9]{3}[ .-]?[0-9]{3}[ ./-]?[0-9]{2}"),
    8,
    whole(_is_nir),
    always,
    words(
        r"nir", r"n[°ºo.]{0,2}\s?(?:de\s)?ss", r"\w*s[ée]cu", r"s[ée]curit[ée]\ssociale", r"insee",
        r"assur[ée]\w*", r"vitale", r"immatriculation",
    ),
    # Without its key it is one beside a word.
    loose=Loose(
        apart("[1-478]", "[0-9]{2}", "[0-9]{2}", "(?:[0-9]{2}|2[ABab])", "[0-9]{3}",
              f"[0-9]{{3}}(?:{GAP}[0-9]{{2}})?"),
        # A letter of Corsica leaves eight in a row.
        (8, 13, 15),
        whole(_is_nir),
        _with_key_on_two_lines,
        (8, 13),
    ),
)  # fmt: skip

_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"  # Ministerio del Interior: number mod 23


def _is_dni(found: str) -> bool:
    text = plain(found)
    number = int(text[:-1].translate(str.maketrans("XYZ", "012")))
    return _DNI_LETTERS[number % 23] == text[-1] and number > 99


ES_DNI = Detector(
    "es_dni",
    "a Spanish identity number (DNI, NIE)",
    "[national id]",
    pattern(r"(?:[0-9]{8}|[0-9]{2}\.[0-9]{3}\.[0-9]{3}|[XYZ]-?[0-9]{7})[ -]?[A-HJ-NP-TV-Z]", re.IGNORECASE),
    7,
    whole(_is_dni),
    always,
    words(r"d\.?n\.?i\.?", r"n\.?i\.?[fe]\.?", r"documento\w*", r"identidad", r"titular"),
    loose=Loose(
        apart(f"(?:[0-9]{{2}}|[XYZ]{GAP}[0-9])", "[0-9]{3}", "[0-9]{3}", "[A-HJ-NP-TV-Z]", flags=re.I),
        (7, 8, 9),
        whole(_is_dni),
        in_one_piece=(7, 8),
    ),
)

# Decreto ministeriale 23 dicembre 1976, tables of characters in odd places.
_CF_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12,
         14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip


def _is_codice_fiscale(found: str) -> bool:
    text = plain(found)
    total = sum(
        _CF_ODD[char] if at % 2 == 0 else int(char) if char.isdigit() else ord(char) - 65
        for at, char in enumerate(text[:15])
    )
    return chr(65 + total % 26) == text[15]


# Letters L to V stand for digits where two people would have the same code (omocodia).
_CF_DIGIT = "[0-9LMNPQRSTUV]"
_CF_GROUPS = apart(
    "[A-Z]{3}", "[A-Z]{3}", f"{_CF_DIGIT}{{2}}", "[ABCDEHLMPRST]", f"{_CF_DIGIT}{{2}}", "[A-Z]",
    f"{_CF_DIGIT}{{3}}", "[A-Z]",
)  # fmt: skip
_CF_BOXES = pattern(
    rf"(?:[A-Z] ){{6}}(?:{_CF_DIGIT} ){{2}}[ABCDEHLMPRST] (?:{_CF_DIGIT} ){{2}}[A-Z] "
    rf"(?:{_CF_DIGIT} ){{3}}[A-Z]"
)
IT_CODICE_FISCALE = Detector(
    "it_codice_fiscale",
    "an Italian tax code (codice fiscale)",
    "[national id]",
    pattern(
        r"[A-Z]{3} ?[A-Z]{3} ?D{2}[ABCDEHLMPRST]D{2} ?[A-Z]D{3} ?[A-Z]".replace("D{", "[0-9LMNPQRSTUV]{"),
        re.IGNORECASE,
    ),
    0,
    whole(_is_codice_fiscale),
    always,
    # Sixteen characters of which each says whether it is a letter leave little to chance.
    loose=Loose(
        re.compile(f"{_CF_GROUPS.pattern}|{_CF_BOXES.pattern}", re.I), (), whole(_is_codice_fiscale), always
    ),
    instead=nothing_else,
)


def _is_bsn(found: str) -> bool:
    """Rijksdienst voor Identiteitsgegevens: the test of eleven, the last digit weighing -1."""
    digits = plain(found).zfill(9)
    return weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and int(digits) > 9_999_999


NL_BSN = Detector(
    "nl_bsn",
    "a Dutch citizen number (BSN)",
    "[national id]",
    pattern(r"[0-9]{8,9}|[0-9]{4}\.[0-9]{2}\.[0-9]{3}|[0-9]{3} [0-9]{3} [0-9]{3}"),
    8,
    whole(_is_bsn),
    lambda found: "." in found,
    words(
        r"bsn(?:-?nr)?",
        r"burgerservice-?n(?:umme)?r",
        r"sofi(?:[\s-]?n(?:umme)?r)?",
        r"citizen[\s_]service[\s_]number",
    ),
    loose=Loose(digits_apart(9), (9,), misread(whole(_is_bsn))),
)


def _is_be_national(found: str) -> bool:
    """Rijksregister: 97 - number mod 97, with a 2 in front for those born from 2000 on."""
    digits = plain(found)
    month, day = int(digits[2:4]) % 20, int(digits[4:6])
    keys = {97 - int(century + digits[:9]) % 97 for century in ("", "2")}
    return month <= 12 and day <= 31 and int(digits[9:]) in keys


def _dotted_on_two_lines(found: str) -> bool:
    return broken(found) and found.count(".") > 1


BE_NATIONAL = Detector(
    "be_national",
    "a Belgian national number",
    "[national id]",
    pattern(r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}[- ][0-9]{3}[.-][0-9]{2}|[0-9]{6}-[0-9]{3}[.-][0-9]{2}|[0-9]{11}"),
    11,
    whole(_is_be_national),
    separated,
    words(
        r"rijksregister\w*", r"registre[\s_]national", r"niss", r"insz", r"num[ée]ro[\s_]national",
        r"nationaal[\s_]nummer", r"national[\s_]register(?:[\s_]number)?", r"rrn", r"nn",
        r"n[°ºro.]{0,2}\s?national",
    ),
    loose=Loose(digits_apart(11), (11,), misread(whole(_is_be_national)), _dotted_on_two_lines),
)  # fmt: skip


def _is_ahv(found: str) -> bool:
    """Zentrale Ausgleichsstelle: the check digit of an EAN-13."""
    return weighted(plain(found), (1, 3) * 6 + (1,)) % 10 == 0


CH_AHV = Detector(
    "ch_ahv",
    "a Swiss insurance number (AHV, AVS)",
    "[national id]",
    pattern(r"756([. ]?)[0-9]{4}\1[0-9]{4}\1[0-9]{2}"),
    13,
    whole(_is_ahv),
    always,
    # Three digits are the same in all.
    loose=Loose(apart("756", "[0-9]{4}", "[0-9]{4}", "[0-9]{2}"), (13,), whole(_is_ahv), always),
)

EUROPE = (
    UK_NINO, DE_STEUER_ID, FR_NIR, ES_DNI, IT_CODICE_FISCALE, NL_BSN, *NORTH, BE_NATIONAL, CH_AHV,
)  # fmt: skip
