"""Write labelled.jsonl: texts, and the personal data in them. The same bytes every time.

python -m tests.data_prep.personal.make_labelled
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.data_prep.personal import numbers
from tests.data_prep.personal.carriers import BUSINESS, NAMED, UNNAMED
from tests.data_prep.personal.numbers import cut

HERE = Path(__file__).parent
LABELLED = HERE / "labelled.jsonl"
# E-mail addresses (domains are those of RFC 2606) and telephone numbers, each text with those in it: numbers
# for fiction of the FCC, Ofcom, BNetzA, ARCEP and PTS, and libphonenumber's examples. Then texts that only
# look so, and what is nobody's data for any detector: what answers about documents and machines hold.
HANDWRITTEN = json.loads((HERE / "handwritten.json").read_text(encoding="utf-8"))
Form = Callable[[str], str]


def bare(number: str) -> str:
    """Written without separators."""
    return number


def dashed_nie(number: str) -> str:
    return f"{number[:-1]}-{number[-1]}"


def _card(number: str, by: str) -> str:
    return cut(4, 4, 4, 4, by=by)(number) if len(number) == 16 else cut(4, 6, 5, by=by)(number)


# The ways a number is written, the commonest first.
FORMS: dict[str, tuple[Form, ...]] = {
    "us_ssn": (cut(3, 2, 4, by="-"), cut(3, 2, 4, by="-"), cut(3, 2, 4), bare),
    "uk_nino": (cut(2, 2, 2, 2, 1), bare, cut(2, 6, 1)),
    "de_steuer_id": (bare, cut(2, 3, 3, 3)),
    "fr_nir": (cut(1, 2, 2, 2, 3, 3, 2), bare, cut(13, 2)),
    "es_dni": (bare, dashed_nie),
    "it_codice_fiscale": (bare, str.lower, cut(3, 3, 5, 5)),
    "nl_bsn": (bare, cut(4, 2, 3, by="."), cut(3, 3, 3)),
    "se_personnummer": (cut(6, 4, by="-"), bare, lambda number: f"20{number[:6]}-{number[6:]}"),
    "pl_pesel": (bare,),
    "br_cpf": (lambda n: f"{n[:3]}.{n[3:6]}.{n[6:9]}-{n[9:]}", bare, cut(9, 2, by="-")),
    "in_aadhaar": (cut(4, 4, 4), bare, cut(4, 4, 4, by="-")),
    "cn_resident_id": (bare,),
    "fi_hetu": (bare, str.lower),
    "be_national": (lambda n: f"{n[:2]}.{n[2:4]}.{n[4:6]}-{n[6:9]}.{n[9:]}", bare, cut(6, 3, 2, by="-")),
    "ch_ahv": (cut(3, 4, 4, 2, by="."), bare, cut(3, 4, 4, 2)),
    "iban": (cut(4, 4, 4, 4, 4, 4, 4), bare, str.lower),
    "card": (lambda n: _card(n, " "), bare, lambda n: _card(n, "-")),
}
COMPUTED: dict[str, Callable[[random.Random], str]] = {
    "us_ssn": numbers.us_ssn,
    "uk_nino": numbers.uk_nino,
    "de_steuer_id": numbers.de_steuer_id,
    "fr_nir": numbers.fr_nir,
    "es_dni": numbers.es_dni,
    "it_codice_fiscale": numbers.it_codice_fiscale,
    "nl_bsn": numbers.nl_bsn,
    "se_personnummer": numbers.se_personnummer,
    "pl_pesel": numbers.pl_pesel,
    "br_cpf": numbers.br_cpf,
    "in_aadhaar": numbers.in_aadhaar,
    "cn_resident_id": numbers.cn_resident_id,
    "fi_hetu": numbers.fi_hetu,
    "be_national": numbers.be_national,
    "ch_ahv": numbers.ch_ahv,
    "iban": lambda rng: rng.choice(numbers.IBANS),
    "card": lambda rng: rng.choice(numbers.CARDS),
}


def labelled() -> Iterator[dict[str, object]]:
    """Every text with its kind and the stretches that are personal data of that kind, none for a negative."""
    for kind in ("email", "phone"):
        for text, spans in HANDWRITTEN[kind]:
            yield {"kind": kind, "text": text, "spans": spans}
    for kind, texts in (("email", "not email"), ("phone", "not phone"), ("*", "nobody")):
        for text in HANDWRITTEN[texts]:
            yield {"kind": kind, "text": text, "spans": []}
    for kind, make in COMPUTED.items():
        rng = random.Random(kind)
        forms, named = FORMS[kind], NAMED[kind]
        for at, carrier in enumerate((*UNNAMED, *named, *named, *named)):
            number = forms[at % len(forms)](make(rng))
            yield {"kind": kind, "text": carrier.format(number), "spans": [number]}
        for at, carrier in enumerate((*named, *BUSINESS[:6])):
            wrong = forms[at % len(forms)](_spoilt(make(rng), kind, rng))
            yield {"kind": kind, "text": carrier.format(wrong), "spans": []}
        for at, carrier in enumerate(BUSINESS):
            yield {"kind": kind, "text": carrier.format(_alike(make(rng), rng)), "spans": []}
            if at % 2:
                longer = f"{forms[0](make(rng))}{rng.randint(10, 99)}"
                yield {"kind": kind, "text": carrier.format(longer), "spans": []}


def _spoilt(number: str, kind: str, rng: random.Random) -> str:
    """Wrong by a digit before the check, or, where there is no check, by what is never given out."""
    if kind == "us_ssn":
        return rng.choice(["000", "666", "9" + number[1:3]]) + number[3:]
    if kind == "uk_nino":
        return rng.choice(["BG", "GB", "NK", "KN", "TN", "NT", "ZZ", "QQ", "DA"]) + number[2:]
    places = [at for at, char in enumerate(number) if char.isdigit() and at >= 4]
    at = places[len(places) // 2]
    return f"{number[:at]}{(int(number[at]) + rng.randint(1, 8)) % 10}{number[at + 1 :]}"


def _alike(number: str, rng: random.Random) -> str:
    """Letters for letters and digits for digits, at random: what a business might call an order."""
    return "".join(
        rng.choice("0123456789") if char.isdigit() else rng.choice(numbers.LETTERS) for char in number
    )


def main() -> None:
    """Write the file."""
    lines = [json.dumps(each, ensure_ascii=False) for each in labelled()]
    LABELLED.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
