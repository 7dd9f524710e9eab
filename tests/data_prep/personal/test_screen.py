"""What happens to personal data in a row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from data_prep.personal.finder import Finder
from data_prep.personal.redaction import Redactor
from data_prep.personal.screen import Screen
from lensmith.data_settings import Personal
from lensmith.sample import Image, Message, Region, Sample, Text, Thinking, ToolCall

MAIL = "anna@example.com"
IBAN = "DE89 3704 0044 0532 0130 00"
SECRETS = (MAIL, IBAN, "DE89")


def row(question: str = "Read.", answer: str = "7", **rest: Any) -> Sample:
    messages = (Message("user", (Image("a.png"), Text(question))), Message("assistant", (Text(answer),)))
    return Sample(rest.pop("id", "a"), rest.pop("group", "g"), messages, **rest)


def test_a_row_without_personal_data_is_the_same_object() -> None:
    sample = row(meta={"digit_sources": [4402, 975, 279]})
    screened = Screen(Personal()).screen(sample)
    assert screened.sample is sample
    assert (screened.flags, screened.flaws) == ((), ())


@pytest.mark.parametrize("place", ["id", "group", "question", "answer", "meta"])
def test_flagged_wherever_it_stands_and_never_quoted(place: str) -> None:
    given: dict[str, Any] = {place: {"by": MAIL} if place == "meta" else MAIL}
    screened = Screen(Personal()).screen(row(**given))
    assert [flag.code for flag in screened.flags] == ["personal_data"]
    assert place in screened.flags[0].what
    assert MAIL not in screened.flags[0].what
    assert screened.sample == row(**given)


def test_places_that_are_not_asked_for_are_left_alone() -> None:
    settings = Personal(places=("question",))
    assert Screen(settings).screen(row(answer=MAIL, id=MAIL, meta={"by": MAIL})).flags == ()


def test_refused() -> None:
    screened = Screen(Personal(action="refuse")).screen(row(answer=f"pay to {IBAN}"))
    assert [flaw.code for flaw in screened.flaws] == ["personal_data"]
    assert screened.flags == ()


def test_each_detector_has_its_own_action() -> None:
    settings = Personal(action="ignore", detectors={"iban": "refuse", "email": "redact"})
    screened = Screen(settings).screen(row(answer=f"{IBAN}, {MAIL}, 4111 1111 1111 1111"))
    assert [flaw.code for flaw in screened.flaws] == ["personal_data"]
    assert [flag.code for flag in screened.flags] == ["redacted"]
    assert screened.sample.answer == f"{IBAN}, [e-mail], 4111 1111 1111 1111"


def test_redacted_in_texts_thinking_labels_calls_and_meta() -> None:
    parts = (
        Thinking(f"it says {MAIL}"),
        ToolCall("look", {"for": [MAIL], "n": 1}),
        Region("box", (0, 0, 1, 1), MAIL),
        Text(MAIL),
    )
    sample = Sample(
        "a", "g", (Message("user", (Image("a"),)), Message("assistant", parts)), {"x": {"by": MAIL}}
    )
    screened = Screen(Personal(action="redact")).screen(sample).sample
    assert MAIL not in repr(screened)
    assert screened.meta == {"x": {"by": "[e-mail]"}}
    assert screened.messages[1].parts[1] == ToolCall("look", {"for": ["[e-mail]"], "n": 1})


def test_an_id_is_never_changed() -> None:
    screened = Screen(Personal(action="redact")).screen(row(group=MAIL))
    assert screened.sample.group == MAIL
    assert [flag.code for flag in screened.flags] == ["personal_data"]


REDACTOR = Redactor(Finder(), lambda each: True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"mail": "anna@example.com", "n": 1}', '{"mail": "[e-mail]", "n": 1}'),
        ('{"mail":"anna\\u0040example.com"}', '{"mail":"[e-mail]"}'),
        ('{"ssn":123456789,"n":1.50}', '{"ssn":"[national id]","n":1.50}'),
        ('{"bsn":{"value":"111222333"}}', '{"bsn":{"value":"[national id]"}}'),
        ('{"GB29NWBK60161331926819":1,"DE89370400440532013000":2}', '{"[IBAN]":1,"[IBAN] 2":2}'),
        ('["ä anna@example.com"]', '["ä [e-mail]"]'),
        ('["\\u00e4 anna@example.com"]', '["\\u00e4 [e-mail]"]'),
        ('{"mail": anna@example.com', '{"mail": [e-mail]'),
        ("Tel. (202) 555-0123 or anna@example.com.", "Tel. [phone] or [e-mail]."),
    ],
)
def test_redacted_text(text: str, expected: str) -> None:
    redacted, found = REDACTOR.redact(text)
    assert redacted == expected
    assert found
    try:
        json.loads(text)
    except ValueError:
        return
    json.loads(redacted)


def test_what_is_redacted_is_not_found_again() -> None:
    text = f"{MAIL}, {IBAN}, 4111 1111 1111 1111, 123-45-6789, (202) 555-0123"
    redacted, found = REDACTOR.redact(text)
    assert len(found) == 5
    assert REDACTOR.redact(redacted) == (redacted, [])


def test_digits_and_dashes_of_other_scripts() -> None:
    finder = Finder()
    assert [span.kind for span in finder.find("आधार ९९९९ ४१०५ ७०५८")] == ["in_aadhaar"]
    assert [span.kind for span in finder.find("SSN 123\u201145\u20116789")] == ["us_ssn"]


def test_long_texts_of_digits_take_no_longer_than_their_length() -> None:
    finder = Finder()
    for text in (
        "1" * 50_000,
        "1 " * 50_000,
        "a@" * 50_000,
        "a." * 50_000 + "@",
        "0-" * 50_000,
        "ABCDEF" * 20_000,
    ):
        finder.find(text)


def test_settings_refuse_unknown_detectors_actions_and_regions() -> None:
    for wrong in ({"detectors": {"passport": "flag"}}, {"action": "delete"}, {"phone_regions": ["Germany"]}):
        with pytest.raises(ValidationError):
            Personal.model_validate(wrong)


def cut(*texts: str) -> Sample:
    asked = Message("user", (Image("a.png"), *(Text(each) for each in texts)))
    return Sample("a", "g", (asked, Message("assistant", (Text("7"),))))


def test_what_is_cut_between_two_texts_is_found_and_replaced() -> None:
    sample = cut("Pay with 4111 1111 ", "1111 1111, or ", f"ask {MAIL}.")
    redacted = Screen(Personal(action="redact")).screen(sample)
    assert redacted.sample.messages[0].parts == (Image("a.png"), Text("Pay with [card], or ask [e-mail]."))
    assert redacted.flags[0].what.startswith("the question holds an e-mail address and a payment card number")
    flagged = Screen(Personal()).screen(sample)
    assert flagged.sample == sample
    assert len(flagged.flags) == 1
    refused = Screen(Personal(action="refuse")).screen(cut("4111 1111 ", "1111 1111"))
    assert [flaw.code for flaw in refused.flaws] == ["personal_data"]


def test_texts_that_only_together_look_like_another_thing_keep_what_they_hold() -> None:
    """The digits behind it make the card a longer number; alone it is one."""
    found = Screen(Personal(action="redact")).screen(cut("4111 1111 1111 1111", "23"))
    assert found.sample.messages[0].parts == (Image("a.png"), Text("[card]"), Text("23"))


def test_texts_with_an_image_between_them_are_two() -> None:
    parts = (Text("4111 1111 "), Image("a.png"), Text("1111 1111"))
    sample = Sample("a", "g", (Message("user", parts), Message("assistant", (Text("7"),))))
    assert Screen(Personal()).screen(sample).flags == ()
