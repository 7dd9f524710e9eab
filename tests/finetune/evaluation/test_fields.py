"""JSON answers as fields."""

from __future__ import annotations

import pytest

from finetune.evaluation.fields import field_name, read_fields


def test_nested_answers_are_flattened_to_paths() -> None:
    text = '{"payer": {"name": "Ada"}, "lines": [{"sum": 3}, {"sum": 4.50}], "paid": true, "note": null}'
    assert read_fields(text) == {
        "payer.name": '"Ada"',
        "lines[0].sum": "3",
        "lines[1].sum": "4.50",
        "paid": "true",
        "note": "null",
    }


def test_values_are_compared_as_written() -> None:
    assert read_fields('{"a": 3}') != read_fields('{"a": "3"}')
    assert read_fields('{"a": 3}') != read_fields('{"a": 3.0}')
    assert read_fields('{"a": 1}') != read_fields('{"a": true}')


def test_a_dotted_key_is_not_a_nested_one() -> None:
    assert read_fields('{"a.b": 1}') != read_fields('{"a": {"b": 1}}')
    assert read_fields('{"a[0]": 1}') != read_fields('{"a": [1]}')


def test_empty_parts_are_values_and_an_empty_object_has_no_fields() -> None:
    assert read_fields('{"a": [], "b": {}}') == {"a": "[]", "b": "{}"}
    assert read_fields("{}") == {}
    assert read_fields("[]") == {"$": "[]"}
    assert read_fields('"text"') == {"$": '"text"'}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot read this",
        '{"a": 1',
        '```json\n{"a": 1}\n```',
        '{"a": 1} and more',
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        "[" * 100_000,
        "[" * 900 + "]" * 899,
    ],
)
def test_what_a_reading_program_would_stumble_on_is_not_json(answer: str) -> None:
    assert read_fields(answer) is None


def test_hostile_numbers_and_depth_are_read_without_harm() -> None:
    digits = "9" * 5000
    assert read_fields(f'{{"a": {digits}}}') == {"a": digits}
    assert read_fields('{"a": 1e999999999999}') == {"a": "1e999999999999"}
    deep = read_fields("[" * 200 + "1" + "]" * 200)
    assert deep == {"[0]" * 200: "1"}


def test_a_lone_surrogate_stays_writable() -> None:
    fields = read_fields('{"a": "\\ud800"}')
    assert fields is not None
    assert fields["a"].encode() == b'"\\ud800"'


def test_list_positions_share_a_field_name() -> None:
    assert field_name("lines[12].sum") == "lines[].sum"
