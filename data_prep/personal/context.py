"""What stands around a number and says what it is, or that it is something else."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How far before and after a number a word may stand that says what it is, in characters.
BEFORE, AFTER = 48, 24
_NO_DIGITS_END = re.compile(r"[^0-9]+\Z")
_NO_DIGITS = re.compile(r"[^0-9]*")
_DIGIT_ABOVE = re.compile(r"[0-9] {0,2}\r?\n {0,4}\Z")
_DIGIT_BELOW = re.compile(r" {0,2}\r?\n {0,4}[0-9]")
# Between two numbers of which a word names the first.
_AND = re.compile(
    r"\s{0,3}(?:[,;/&+]\s{0,3}|\s(?:and|or|und|oder|bzw\.|et|ou|y|o|e|i|lub|en|of|och|eller|ja|tai)\s)\s{0,3}"
)
# What a word right before a number calls it when it is nobody's, and units that make it a measure.
_ELSE = re.compile(
    r"(?:(?<![^\W_])(?:(?:bestell|auftrag|paket|sendung|liefer|serien|artikel|teil|rechnung|z[äa]hler|chargen"
    r"|vorgang|ticket|invoice|order|tracking|parcel|serial|faktura)\w*"
    r"|commande|colis|bon de livraison|facture|compteur|pedido|factura|paquete|contador|ordine|fattura|pacco"
    r"|contatore|encomenda|fatura|zam[óo]wieni\w+|paczk\w+|przesy[łl]k\w+|licznik\w*|factuur|pakket"
    r"|paketti|tilaus\w*|lasku|beställning\w*|mätare|shipment|consignment|part|item|sku"
    r"|article|ean|upc|gtin|barcode|lot|batch|meter|ticket|case|imei|vin|s/n)|订单|包裹|发票)"
    r"(?:[\s_-]{0,2}(?:no|nr|num|number|nummer|numer|num[ée]ro|número|n|n[°º]|id|code|reading)(?![^\W_]))?"
    r"[\s:#.°º\"'=号]{0,6}\Z",
    re.IGNORECASE,
)
_UNIT = re.compile(r" ?(?:[mk]V|mA|mm|cm|km|kg|mg|ml|kWh?|Wh|[kMG]?Hz|px|pcs|Stk|Stück|°C|%)(?![^\W_])")


def words(*stems: str, anywhere: Sequence[str] = ()) -> re.Pattern[str]:
    """A pattern of words in any case, whole or as a part of a key such as `customer_bsn`.

    `anywhere`: words of scripts that write no spaces.
    """
    whole_words = (rf"(?<![^\W_]){stem}(?![^\W_])" for stem in stems)
    return re.compile("|".join([*whole_words, *anywhere]), re.IGNORECASE)


def is_named(words: re.Pattern[str] | None, text: str, before: str, start: int, end: int) -> bool:
    """Whether one of `words` stands near `text[start:end]`; `before` is the text in front of `text`."""
    if words is None:
        return False
    return bool(words.search(_ahead(text, before, start)) or words.search(text[end : end + AFTER]))


def is_named_closely(words: re.Pattern[str] | None, text: str, before: str, start: int, end: int) -> bool:
    """Whether a word stands near and no digit between; where a letter stands right before, it ends a word."""
    if words is None:
        return False
    ahead = _NO_DIGITS_END.search(_ahead(text, before, start))
    near = ahead.group() if ahead else ""
    if is_glued(text, start):
        return any(match.end() == len(near) for match in words.finditer(near))
    after = _NO_DIGITS.match(text, end, end + AFTER)
    return bool(words.search(near) or (after and words.search(after.group())))


def is_glued(text: str, start: int) -> bool:
    """Whether a letter of ours stands right before, without a space."""
    return text[start - 1 : start].isascii() and text[start - 1 : start].isalpha()


def is_in_a_column(text: str, start: int, end: int) -> bool:
    """Whether the line before ends, or the line after begins, with a digit: lines of a table of numbers."""
    return bool(_DIGIT_ABOVE.search(text, max(0, start - 8), start) or _DIGIT_BELOW.match(text, end))


def is_joined(text: str, last: int, start: int) -> bool:
    """Whether only a comma, an "and" or the like stands from `last` to `start`."""
    return bool(_AND.fullmatch(text, last, start))


def is_something_else(text: str, before: str, start: int, end: int) -> bool:
    """Whether the word right before it calls it an order or a parcel, or a unit follows."""
    return bool(_UNIT.match(text, end) or _ELSE.search(_ahead(text, before, start)))


def _ahead(text: str, before: str, start: int) -> str:
    return (before[-BEFORE:] + text[:start])[-BEFORE:] if start < BEFORE else text[start - BEFORE : start]
