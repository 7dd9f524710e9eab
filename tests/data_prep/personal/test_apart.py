"""Numbers and addresses as a scan, the end of a line or a form leaves them, and what only looks so.

Every rule has a text that it finds and one beside it that only a rule left out would take.
"""

from __future__ import annotations

import dataclasses
import re
import re._parser as sre_parser
from typing import Any

import pytest

from data_prep.personal import context, email
from data_prep.personal.detector import Detector, always, nothing_else
from data_prep.personal.finder import Finder, detectors
from data_prep.personal.redaction import Redactor
from tests.data_prep.personal.steps import Steps

FINDER = Finder()


def found(text: str, finder: Finder = FINDER) -> list[str]:
    return [f"{span.kind} {text[span.start : span.end]}" for span in finder.find(text)]


@pytest.mark.parametrize(
    "text",
    [
        # Over a line end.
        "IBAN «iban DE89 3704 0044\n0532 0130 00»",
        "paid with «card 4111 1111\n1111 1111»",
        "SSN «us_ssn 624-\n92-5488»",
        "CPF «br_cpf 123.456.789-\n09»",
        "Aadhaar «in_aadhaar 9999 4105\n7058»",
        "no word: «cn_resident_id 110105194912\n31002X»",
        "printed: «uk_nino AB 12 34\n56 C»",
        "Steuer-ID «de_steuer_id 86 095\n742 719»",
        "no word: «fr_nir 2 55 08 14\n168 025 38»",
        "DNI «es_dni 12345678-\nZ»",
        "no word: «it_codice_fiscale RSSMRA85T10\nA562S»",
        "BSN «nl_bsn 1112\n22333»",
        "personnummer «se_personnummer 811218-\n9876»",
        "PESEL «pl_pesel 440514\r\n01359»",
        "no word: «fi_hetu 131052-\n308T»",
        "no word: «be_national 85.07.30-\n033.28»",
        "no word: «ch_ahv 756.9217.\n0769.85»",
        "no word: «phone +49 30\n23125 014»",
        "Tel.\n«phone 020\n7946 0958»",
        # Separators of another place, boxes, letters for digits.
        "Kto. «iban DE89/3704/0044/0532/0130/00»",
        "no word: «iban D E 8 9 3 7 0 4 0 0 4 4 0 5 3 2 0 1 3 0 0 0»",
        "«iban DE89 37O4 OO44 0532 0130 00»",
        "IBAN«iban DE89370400440532013000»",
        "American Express «card 3782.822463.10005»",
        "card «card 4l11 1111 1111 1111»",
        "SSN: «us_ssn 1 2 3 4 5 6 7 8 9»",
        "SSN «us_ssn 123 - 45 - 6789»",
        "CPF «br_cpf 123 456 789 09»",
        "ni «uk_nino AB 123 456 C»",
        "National Insurance «uk_nino AB 12 34 56»",
        "IdNr «de_steuer_id 86.095.742.719»",
        "no word: «de_steuer_id 8 6 0 9 5 7 4 2 7 1 9»",
        "sécu «fr_nir 2550814168025»",
        "NIE «es_dni X 1234567 L»",
        "«it_codice_fiscale R S S M R A 8 5 T 1 0 A 5 6 2 S»",
        "«it_codice_fiscale RSSMRA-85T10-A562S»",
        "bsn «nl_bsn 1112 22 333»",
        "personnummer «se_personnummer 811218 9876»",
        "PESEL«pl_pesel 44051401359»",
        "«fi_hetu 131052 - 308T»",
        "niss «be_national 85 07 30 033 28»",
        "证件 «cn_resident_id 110105 19491231 002X»",
        "tel. «phone 512 340 877»",
        "Tel. «phone 0221 / 4710 8812»",
        # The second of two that a word names.
        "CPF «br_cpf 123.456.789-09» e «br_cpf 98765432100»",
        # Addresses.
        "«email anna.berg @ kontor.example.se» scanned",
        "«email anna@ kontor.example.se» scanned",
        "E-Mail: «email lena @ kontor.se»",
        "«email lena @ kontor . se»",
        "«email dana@\nledger.example.com»",
        "«email dana@ledger.\nexample.com»",
        "«email dana@ledger.example\n.com»",
        "«email dana@northern-\nfreight.example.com»",
        "«email dana@example. com» wrote",
        "Write to «email anna@example.com». Thanks",
        "Write to «email anna@example.com».Thanks",
        "«email anna@example.com».\nBest regards",
        "«email john [at] example [dot] com»",
        "mail «email j.smith at example dot com»",
        "e-mail «email j.smith at example.com»",
        "mailto:«email anna+x@example.com»?subject=Hi",
        "____«email anna@example.com»____",
        "Mail.....«email anna@example.com»",
        "«email info@x.de»/«email anna@y.de»",
        '«email "front desk"@hotel.example.com»',
        "«email svc!relay%old@gate.example.org», «email user{tag}@example.org»",
        "«email postmaster@[192.0.2.17]» bounced",
        "連絡先:«email tanaka@kaisha.example.jp»まで",
        "邮箱«email wang@example.cn»谢谢",
    ],
)
def test_found_from_its_first_character_to_its_last(text: str) -> None:
    marked = re.findall(r"«(\w+) (.*?)»", text, re.DOTALL)
    plain = re.sub(r"«\w+ (.*?)»", r"\1", text, flags=re.DOTALL)
    assert found(plain) == [f"{kind} {stretch}" for kind, stretch in marked]


@pytest.mark.parametrize(
    "text",
    [
        # Pulled apart, and no word and no strong check to vouch for it.
        "811218 9876",
        "85 07 30 033 28",
        "624-\n92-5488",
        "9999 4105\n7058",
        "1112 22 333",
        "123 456 789 09",
        "4111.1111.1111.1111",
        "AB 12 34 56",
        "2550814168025",
        "512 340 877",
        "BSN 7 is not 1112 22 333",
        # Lines of a table.
        "4111 1111\n1111 1111\n2222 3333",
        "2222 3333\n4111 1111\n1111 1111",
        # The word, and a wrong check.
        "CPF 123 456 789 08",
        "PESEL 440514\n01358",
        "card 4111 1111\n1111 1112",
        "IBAN DE88/3704/0044/0532/0130/00",
        "DE89 37O4 OO44 0532 0130 01",
        # A longer row of digits.
        "CPF 123 456 789 09 7",
        "CPF 7 123 456 789 09",
        "XPESELA44051401359",
        # Something else by the word before it or the unit after it.
        "Parcel number 4111111111111111",
        "Lieferschein 86095742719",
        "Part 412-77-9031",
        "Order no. 202-555-0123",
        "412-77-9031-B",
        "readings 4111 1111 1111 1111 mV",
        "NL24 QZBK 0516 1964 70",
        # No addresses.
        "look at the dot com bubble",
        "we met at example.com yesterday",
        "j.smith at example dot com",
        "follow us @ twitter.com",
        "self.a @ np.diag",
        "see v1.2 @ example.com",
        "ftp://bob:pass@ftp.example.org",
        "https://host.example.org/anna@y.de",
        "user@host.example.com:~$ ls",
        "left-pad@1.3.0-beta.rc",
        "{name}@example.com",
        "name..surname@example.com",
        "anna@example.\nThanks",
    ],
)
def test_never_without_a_vouching(text: str) -> None:
    assert found(text) == []


def without(**changes: Any) -> Finder:
    """The mutant: every detector with `changes`, made from what it had where that is a function."""

    class Changed(Finder):
        def __init__(self) -> None:
            super().__init__()
            self.detectors = tuple(
                dataclasses.replace(each, **{name: made(each) for name, made in changes.items()})
                for each in self.detectors
            )
            self._loose = tuple((each, each.loose) for each in self.detectors if each.loose is not None)

    return Changed()


def surer(each: Detector) -> Any:
    return None if each.loose is None else dataclasses.replace(each.loose, sure=always)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"loose": surer}, "811218 9876"),
        ({"loose": surer}, "AB 12 34 56"),
        ({"instead": lambda each: nothing_else}, "Lieferschein 86095742719"),
        ({"instead": lambda each: nothing_else}, "readings 4111 1111 1111 1111 mV"),
        ({"instead": lambda each: nothing_else}, "NL24 QZBK 0516 1964 70"),
        ({"instead": lambda each: nothing_else}, "ftp://bob:pass@ftp.example.org"),
        ({"instead": lambda each: nothing_else}, "https://host.example.org/anna@y.de"),
        ({"alone": lambda each: always}, "follow us @ twitter.com"),
        ({"alone": lambda each: always}, "look at the dot com bubble"),
    ],
)
def test_without_its_rule_the_wrong_is_found(changes: dict[str, Any], text: str) -> None:
    assert found(text) == []
    assert found(text, without(**changes)) != []


def test_without_the_loose_forms_nothing_broken_is_found() -> None:
    assert found("CPF 123 456 789 09") != []
    assert found("CPF 123 456 789 09", without(loose=lambda each: None)) == []


@pytest.mark.parametrize(
    ("module", "name", "changed", "text"),
    [
        (context, "_DIGIT_BELOW", re.compile("(?!)"), "4111 1111\n1111 1111\n2222 3333"),
        (context, "_DIGIT_ABOVE", re.compile("(?!)"), "2222 3333\n4111 1111\n1111 1111"),
        (context, "_NO_DIGITS_END", re.compile(r"[^\n]+\Z"), "BSN 7 is not 1112 22 333"),
        (email, "_VERSION", re.compile("(?!)"), "left-pad@1.3.0-beta.rc"),
        (email, "_TWO_WORDS", re.compile(r"\w[._]\w"), "see v1.2 @ example.com"),
        (email, "_is_top", always, "self.a @ np.diag"),
    ],
)
def test_without_its_pattern_the_wrong_is_found(
    module: Any, name: str, changed: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(text) == []
    monkeypatch.setattr(module, name, changed)
    assert found(text) != []


@pytest.mark.parametrize(
    ("module", "name", "text", "wanted"),
    [
        (
            context,
            "_AND",
            "CPF 123.456.789-09 e outro documento bem longe daqui, de outra pessoa, e 98765432100",
            1,
        ),
        (context, "_AND", "123.456.789-09 e 98765432100", 2),
    ],
)
def test_only_what_is_joined_to_a_named_one_is_named(module: Any, name: str, text: str, wanted: int) -> None:
    assert len(found(text)) == wanted


def test_without_the_joining_words_the_second_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_AND", re.compile("(?!)"))
    assert found("123.456.789-09 e 98765432100") == ["br_cpf 123.456.789-09"]


def test_a_number_on_the_first_line_is_not_drawn_into_the_next() -> None:
    assert found("Tel. 030 23125 118\n2024 was dry") == ["phone 030 23125 118"]


def test_redaction_covers_both_lines_and_json_stays_json() -> None:
    redactor = Redactor(FINDER, lambda each: True)
    assert redactor.redact("IBAN DE89 3704 0044\n0532 0130 00 end\n")[0] == "IBAN [IBAN] end\n"
    assert redactor.redact("mail dana@ledger.\nexample.com, ok")[0] == "mail [e-mail], ok"
    broken = '{"pesel": "440514\\n01359", "n": "a\\nb"}'
    assert redactor.redact(broken)[0] == '{"pesel": "[national id]", "n": "a\\nb"}'
    assert redactor.redact('{"m":"dana@\\nledger.example.com"}')[0] == '{"m":"[e-mail]"}'


PATTERNS = {
    f"{each.name}{kind}": pattern
    for each in detectors()
    for kind, pattern in (("", each.pattern), (" apart", each.loose.pattern if each.loose else None))
    if pattern is not None
}
ADVERSE = (
    "1 ",
    "1  ",
    "1. ",
    "1-\n",
    "1\n",
    "1 - ",
    "A ",
    "AB",
    "a@",
    "a.",
    "a{a}",
    "a@a-\n",
    "a. ",
    '"',
    "a at ",
    "O1l",
    "1/",
)


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_reads_further_than_a_bound_from_where_it_starts(name: str) -> None:
    """The structure that makes a search linear: from any character at most so many are read, and no repeat of
    a repeat can share them out in more than a few ways (counted below)."""
    _, most = sre_parser.parse(PATTERNS[name].pattern, PATTERNS[name].flags).getwidth()
    assert most < 4000


@pytest.mark.parametrize("piece", ADVERSE)
def test_steps_on_adverse_texts_grow_with_their_length_only(piece: str) -> None:
    """Steps of a plain backtracking matcher, which tries what the engine tries, from one start."""
    text = piece * 120
    for name, pattern in PATTERNS.items():
        steps = Steps(text, pattern)
        for start in range(len(text) // 2, len(text) // 2 + len(piece)):
            steps.matches(start)
            assert steps.taken < 6000, (name, start)


def test_the_steps_of_a_pattern_with_many_ways_are_seen() -> None:
    """The mutant: two repeats that share the same spaces out between them."""
    steps = Steps("1  " * 30, re.compile(r"[0-9](?: {0,2}-? {0,2}[0-9]){9}x"))
    assert not steps.matches(0)
    assert steps.taken > 6000
    assert Steps("ab-1@x", re.compile(r"[a-z]{2}-(?<=-)(?!2)\d(?:@|$)")).matches(0)


@pytest.mark.slow
def test_adverse_texts_of_100_kb_are_read() -> None:
    """Once each; a search that is not linear does not come back."""
    for piece in ADVERSE:
        FINDER.find((piece * 100_000)[:100_000])
