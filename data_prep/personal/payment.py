"""Payment cards and bank accounts."""

from __future__ import annotations

import re

from data_prep.personal.apart import BREAK, LOOSE_START, broken, digits_apart, in_boxes, misread
from data_prep.personal.checksums import iso7064_mod_97_10, luhn
from data_prep.personal.context import words
from data_prep.personal.detector import END, START, Detector, Loose, always, nothing_else, plain, whole

# Lengths by first digits, as the networks publish them (ISO/IEC 7812 issuer numbers).
_ISSUERS: tuple[tuple[range, frozenset[int]], ...] = (
    (range(400000, 500000), frozenset({16, 19})),  # Visa; its 13 digits are no longer issued
    (range(510000, 560000), frozenset({16})),  # Mastercard
    (range(222100, 272100), frozenset({16})),  # Mastercard
    (range(340000, 350000), frozenset({15})),  # American Express
    (range(370000, 380000), frozenset({15})),
    (range(300000, 306000), frozenset({14, 16, 19})),  # Diners Club
    (range(309500, 309600), frozenset({14, 16, 19})),
    (range(360000, 370000), frozenset({14, 16, 19})),
    (range(380000, 400000), frozenset({14, 16, 19})),
    (range(601100, 601200), frozenset({16, 19})),  # Discover
    (range(644000, 660000), frozenset({16, 19})),
    (range(352800, 359000), frozenset({16, 17, 18, 19})),  # JCB
    (range(620000, 630000), frozenset({16, 17, 18, 19})),  # UnionPay
    (range(220000, 220500), frozenset({16, 17, 18, 19})),  # Mir
    (range(508500, 509000), frozenset({16})),  # RuPay
    (range(606900, 608600), frozenset({16})),
    *(
        (range(first, first + 100), frozenset({12, 13, 14, 15, 16, 17, 18, 19}))  # Maestro
        for first in (501800, 502000, 503800, 589300, 630400, 675900, 676100, 676200, 676300)
    ),
)
_CARD = re.compile(
    rf"{START}(?<![0-9] )(?:[0-9]{{4}}([ -])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}(?:\1[0-9]{{3}})?"
    rf"|[0-9]{{4}}([ -])[0-9]{{6}}\2[0-9]{{4,5}}|[0-9]{{12,19}}){END}(?! [0-9]{{4}}(?![0-9]))"
)


def _is_card(found: str) -> bool:
    digits = plain(found)
    first = int(digits[:6])
    issued = any(first in numbers and len(digits) in lengths for numbers, lengths in _ISSUERS)
    return issued and luhn(digits)


_FOURS = re.compile(r"(?!.*[OoIl])[0-9]{4}(?:[ -]?[0-9]{4}|[ -]?\r?\n[0-9]{4}){3}")


def _fours_on_two_lines(found: str) -> bool:
    return broken(found) and bool(_FOURS.fullmatch(found))


CARD = Detector(
    "card",
    "a payment card number",
    "[card]",
    _CARD,
    12,
    whole(_is_card),
    always,
    words(
        r"\w*cards?", r"\w*karten?", r"\w*kort", r"\w*kortti", r"\w*kaart", r"cartes?", r"carta",
        r"cart[ãa]o", r"tarjeta",
        r"karta", r"karty", r"visa", r"master\s?card", r"amex", r"american\sexpress",
        r"maestro", r"pan", r"cc",
        anywhere=("卡号", "信用卡", "银行卡", "カード"),
    ),
    loose=Loose(digits_apart(16, fewer=1), (15, 16), misread(whole(_is_card)), _fours_on_two_lines),
)  # fmt: skip

# Lengths by country, SWIFT IBAN registry, release 99.
IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO", "16": "BE BI", "18": "DK FI FK FO GL NL SD", "19": "MK SI",
        "20": "AT BA EE KZ LT LU MN XK", "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ OM SO TL", "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST",
        "26": "IS TR", "27": "BF BJ CI CM DJ FR GR IT MC MR NE SM SN TG",
        "28": "AL AZ BY CY DO GT HN HU LB NI PL SV",
        "29": "BR EG PS QA UA", "30": "JO KW MU YE", "31": "MT SC", "32": "LC", "33": "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
# Its own name may stand right before it: a form that prints the word and no space.
_IBAN = re.compile(
    r"(?:(?<![A-Za-z0-9_])|(?<=IBAN)|(?<=iban))[A-Za-z]{2}[0-9]{2}"
    rf"(?:[ .-]?{BREAK}[A-Za-z0-9]){{11,30}}"
)
_IBAN_APART = re.compile(
    rf"{LOOSE_START}(?<![A-Za-z])[A-Za-z] ?[A-Za-z][ -]?[0-9] ?[0-9]"
    rf"(?:[ ./-]{{0,2}}{BREAK}[A-Za-z0-9]){{11,30}}"
)
# Letters that a scan reads for digits.
_MISREAD = str.maketrans("OIL", "011")


def _iban_length(found: str) -> int:
    """Characters, separators included, of the IBAN that `found` begins with."""
    wanted = IBAN_LENGTHS.get(plain(found[:3])[:2])
    if wanted is None:
        return 0
    seen = 0
    for at, char in enumerate(found, start=1):
        seen += char.isalnum()
        if seen == wanted:
            text = plain(found[:at])
            goes_on = found[at : at + 1].isalnum()
            return 0 if goes_on or not _passes(text) else at
    return 0


def _passes(text: str) -> bool:
    """By its check digits, as it is written or with letters of the account read as the digits they look like.

    Letters of the bank's code, the four after the check digits, may be meant as such.
    """
    account = text[4:]
    meant = {account, account[:4] + account[4:].translate(_MISREAD), account.translate(_MISREAD)}
    return any(iso7064_mod_97_10(each + text[:4]) for each in meant)


IBAN = Detector(
    "iban",
    "a bank account (IBAN)",
    "[IBAN]",
    _IBAN,
    6,
    _iban_length,
    always,
    words=words(
        r"iban",
        r"account",
        r"acct",
        r"konto\w*",
        r"kto",
        r"compte",
        r"conto",
        r"cuenta",
        r"conta",
        r"rekening\w*",
        r"rachun\w+",
        r"tili\w*",
        anywhere=("账号", "账户", "口座"),
    ),
    loose=Loose(_IBAN_APART, tuple(range(8, 35)), _iban_length, in_boxes),
    instead=nothing_else,
)
