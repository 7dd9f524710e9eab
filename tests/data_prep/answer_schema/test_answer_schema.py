"""Schemas that are refused, and answers that do not fit the ones that are taken."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_prep.answer_schema.audit import LONGEST_PATTERN
from data_prep.answer_schema.schema import AnswerSchema, read_schema
from lensmith.data_settings import Schema
from lensmith.errors import InputError

FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "account": {"type": "string", "pattern": "^[0-9]{6}$"},
        "amount": {"type": "number", "minimum": 0, "multipleOf": 0.01},
        "date": {"type": "string", "format": "date"},
        "state": {"enum": ["paid", "open"]},
        "lines": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/line"}},
        "signed": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    },
    "required": ["account", "date"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}},
}
# Doubles its time with every two letters.
ENDLESS = "^(a|aa)+$"
SCHEMA = AnswerSchema(FORM, "data.answer_schema")
GOOD: dict[str, Any] = {
    "account": "650019",
    "amount": 37.51,
    "date": "2025-06-13",
    "lines": [{"n": 1}],
    "signed": None,
}


def test_a_good_answer_has_no_flaws() -> None:
    assert SCHEMA.check(json.dumps(GOOD)) == []


def test_what_is_not_json_is_another_check_s_flaw() -> None:
    assert SCHEMA.check("{") == []


@pytest.mark.parametrize(
    ("change", "what", "mend"),
    [
        (
            {"account": "65001"},
            "account is '65001', which is not of the form ^[0-9]{6}$",
            "write it in this form",
        ),
        ({"account": 650019}, "account is 650019; text in quotes is expected", "write text in quotes"),
        (
            {"amount": "37.51"},
            "amount is '37.51'; a number is expected",
            "write it as a number: without quotes",
        ),
        ({"amount": -1}, "amount is -1; 0 or more is expected", "write 0 or more"),
        ({"amount": 37.511}, "amount is 37.511; a multiple of 0.01 is expected", "write a multiple of 0.01"),
        ({"amount": True}, "amount is true; a number is expected", "write a number"),
        ({"date": "13.06.2025"}, "date is '13.06.2025'; a date as 2026-05-31 is expected", "write a date"),
        ({"date": "2025-02-30"}, "date is '2025-02-30'; a date as", "write a date"),
        ({"state": "payd"}, "state is 'payd'; one of 'paid', 'open' is expected", "did you mean paid?"),
        ({"lines": [{"n": 1}, {"m": 2}]}, "lines[1] lacks the field n", "add the field n"),
        ({"lines": [{"n": 1.5}]}, "lines[0].n is 1.5; a whole number is expected", "write a whole number"),
        ({"lines": [{"n": 1}] * 4}, "lines has 4 entries; at most 3 are expected", "write at most 3 entries"),
        ({"signed": "yes"}, "signed fits none of the 2 allowed forms; the closest:", "write"),
        ({"acount": 1}, "the answer has a field 'acount' that nobody asked for", "did you mean account?"),
        ({"account": None}, "account is null; text in quotes is expected", "write text in quotes"),
    ],
)
def test_flaws_say_where_what_and_how_to_mend(change: dict[str, Any], what: str, mend: str) -> None:
    (flaw,) = SCHEMA.flaws(GOOD | change)
    assert flaw.code == "answer_schema"
    assert flaw.what.startswith(what)
    assert flaw.mend.startswith(mend)


def test_all_flaws_at_once_missing_fields_together() -> None:
    flaws = SCHEMA.flaws({"amount": "x", "state": "x"})
    assert [flaw.what.split(" ")[0] for flaw in flaws] == ["the", "amount", "state"]
    assert flaws[0].what == "the answer lacks the fields account, date"


def test_no_more_than_ten_flaws() -> None:
    schema = AnswerSchema({"items": {"type": "string"}}, "data.answer_schema")
    assert len(schema.flaws(list(range(50)))) == 10


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "objct"}, "data.answer_schema#/type: "),
        ({"properties": {"a": {"minimum": "3"}}}, "data.answer_schema#/properties/a/minimum: "),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "another dialect"),
        ({"$ref": "https://example.com/schema.json"}, "nothing is fetched"),
        (
            {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
            "data.answer_schema#/properties/a/$ref: points outside",
        ),
        ({"items": {"$dynamicRef": "other.json"}}, "nothing is fetched"),
        ({"allOf": [{"$ref": "#/$defs/a"}]}, "data.answer_schema#/allOf/0/$ref: points to nothing"),
        ({"$ref": "#a"}, "points outside"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"pattern": "("}, "'(' is not a regular expression"),
        ({"patternProperties": {"[": {}}}, "'[' is not a regular expression"),
        ({"pattern": "a" * (LONGEST_PATTERN + 1)}, "the pattern has 501 characters"),
        ({"format": "uri"}, "format uri cannot be checked"),
        ({"properties": {"a": {"$id": "x"}}}, "$id inside a schema"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "not supported"),
        ([], "a schema is an object"),
    ],
)
def test_schemas_that_are_refused(schema: Any, problem: str) -> None:
    with pytest.raises(InputError) as refused:
        AnswerSchema(schema, "data.answer_schema")
    assert problem in str(refused.value)


def test_every_problem_of_a_schema_at_once() -> None:
    with pytest.raises(InputError) as refused:
        AnswerSchema({"properties": {"a": {"pattern": "("}, "b": {"format": "uri"}}}, "data.answer_schema")
    assert len(refused.value.problems) == 2


def test_fields_may_be_called_like_keywords() -> None:
    properties = {
        "$ref": {"type": "string"},
        "pattern": {"type": "string"},
        "format": {"const": {"$ref": "http://x"}},
    }
    schema = AnswerSchema({"properties": properties}, "data.answer_schema")
    assert schema.flaws({"pattern": "(", "$ref": "x"}) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": ENDLESS}}},
        {"patternProperties": {ENDLESS: {}}},
        {"patternProperties": {ENDLESS: {}}, "additionalProperties": False},
    ],
)
def test_a_pattern_that_does_not_end_is_stopped(schema: dict[str, Any]) -> None:
    checked = AnswerSchema(schema, "data.answer_schema")
    endless = "a" * 80 + "b"
    started = time.monotonic()
    (flaw,) = checked.flaws({"a": endless, endless: 1})
    assert "took too long" in flaw.what
    assert time.monotonic() - started < 5


def test_an_answer_that_is_nested_too_deeply_is_a_flaw() -> None:
    schema = AnswerSchema({"properties": {"a": {"$ref": "#"}}}, "data.answer_schema")
    value: dict[str, Any] = {}
    for _ in range(900):
        value = {"a": value}
    assert [flaw.what for flaw in schema.flaws(value)] == ["it is nested too deeply"]


def test_multiples_in_decimals() -> None:
    schema = AnswerSchema({"multipleOf": 0.01}, "data.answer_schema")
    assert [cents for cents in range(20_000) if schema.flaws(cents / 100)] == []
    assert schema.flaws(1e300) == [] or schema.flaws(1e300)[0].code == "answer_schema"


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        (r"^[0-9]{6}$", "650019", "650019\n"),
        (r"^\d+$", "12", "१२"),
        (r"^[\d.]+$", "1.2", "१.२"),
        (r"^\w+$", "ab_1", "äb"),
        (r"^\D+$", "१a", "1a"),
        (r"^[$]\$$", "$$", "$"),
        (r"^\[\]$", "[]", "["),
    ],
)
def test_patterns_mean_what_ecma_262_says(pattern: str, fits: str, fails: str) -> None:
    schema = AnswerSchema({"pattern": pattern}, "data.answer_schema")
    assert schema.flaws(fits) == []
    assert len(schema.flaws(fails)) == 1


def test_times() -> None:
    schema = AnswerSchema(
        {"properties": {"a": {"format": "date-time"}, "b": {"format": "time"}}}, "data.answer_schema"
    )
    assert schema.flaws({"a": "2026-05-31T14:30:00+02:00", "b": "14:30:00"}) == []
    assert len(schema.flaws({"a": "2026-05-31T14:30:00", "b": "25:00"})) == 2


def test_schema_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "form.schema.json"
    path.write_text(json.dumps(FORM), encoding="utf-8-sig")
    assert read_schema(Schema(file=path)).flaws(GOOD) == []
    assert read_schema(Schema(inline=FORM)).flaws(GOOD) == []
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_schema(Schema(file=path))
    with pytest.raises(InputError, match="cannot be read"):
        read_schema(Schema(file=tmp_path / "none.json"))


def test_either_inline_or_a_file() -> None:
    for wrong in ({}, {"inline": {}, "file": "x.json"}):
        with pytest.raises(ValidationError):
            Schema.model_validate(wrong)


def test_rows_a_second() -> None:
    answer = json.dumps(GOOD)
    started = time.process_time()
    for _ in range(2000):
        SCHEMA.check(answer)
    # About 20,000 for six fields and 35,000 for three where it was measured: slow machines have a tenth.
    assert 2000 / (time.process_time() - started) > 2_000
