"""Metrics against examples counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.evaluation.metrics import (
    OTHER_FIELDS,
    Judged,
    field_scores,
    group_tallies,
    judge,
    metric_values,
)
from lensmith.report import FieldScore


@pytest.fixture
def judged() -> list[Judged]:
    return [
        # Both fields right.
        judge("1", "g1", '{"a": "12", "b": "3"}', '{"a": "12", "b": "3"}', "json"),
        # a wrong, b missing, c invented.
        judge("2", "g1", '{"a": "12", "b": "3"}', '{"a": "13", "c": "9"}', "json"),
        # Not JSON: no fields given.
        judge("3", "g2", '{"a": "12"}', "nothing", "json"),
    ]


def test_verdicts_of_one_row(judged: list[Judged]) -> None:
    assert {field.path: field.verdict for field in judged[1].fields} == {
        "a": "wrong",
        "b": "missing",
        "c": "extra",
    }


def test_metrics_by_hand(judged: list[Judged]) -> None:
    values = metric_values(group_tallies(judged, ["g1", "g2"]).sum(axis=0))
    # right 2, given 4, labelled 5
    assert values["field_precision"] == pytest.approx(2 / 4)
    assert values["field_recall"] == pytest.approx(2 / 5)
    assert values["field_f1"] == pytest.approx(2 * 2 / (4 + 5))
    assert values["exact_match"] == pytest.approx(1 / 3)
    assert values["json_validity"] == pytest.approx(2 / 3)
    # Row 2: 2 to 3, b to c, 3 to 9. Row 3 keeps none of its 11 characters.
    characters = 21 + 21 + 11
    assert values["character_error_rate"] == pytest.approx((0 + 3 + 11) / characters)


@pytest.mark.parametrize(
    ("label", "answer", "edits"),
    [("kitten", "sitting", 3), ("abc", "", 3), ("", "abc", 3), ("12.50", "12.05", 2), ("für", "fur", 1)],
)
def test_edits_are_levenshtein(label: str, answer: str, edits: int) -> None:
    assert judge("1", "g", label, answer, "text").edits == edits


def test_error_rate_is_total_edits_over_total_characters() -> None:
    rows = [judge("1", "g", "ab", "xyzab", "text"), judge("2", "g", "abcdefgh", "abcdefgh", "text")]
    values = metric_values(group_tallies(rows, ["g"]).sum(axis=0))
    assert values["character_error_rate"] == pytest.approx(3 / 10)
    long = [judge("1", "g", "ab", "x" * 20, "text")]
    assert metric_values(group_tallies(long, ["g"])[0])["character_error_rate"] == pytest.approx(10)


def test_outer_white_space_is_no_mistake() -> None:
    assert judge("1", "g", "ab", " ab\n", "text").exact


def test_a_share_of_nothing_is_zero() -> None:
    values = metric_values(np.zeros((3, 8)))
    assert all((each == 0).all() for each in values.values())


def test_scores_by_field(judged: list[Judged]) -> None:
    scores = field_scores(judged)
    assert list(scores) == ["a", "b", OTHER_FIELDS]
    assert scores["a"] == FieldScore(precision=0.5, recall=round(1 / 3, 6), f1=0.4, n=3)
    assert scores["b"] == FieldScore(precision=1.0, recall=0.5, f1=round(2 / 3, 6), n=2)
    assert scores[OTHER_FIELDS] == FieldScore(precision=0.0, recall=0.0, f1=0.0, n=0)


def test_invented_fields_share_one_line() -> None:
    answer = "{" + ", ".join(f'"x{i}": 1' for i in range(500)) + "}"
    assert list(field_scores([judge("1", "g", '{"a": 1}', answer, "json")])) == ["a", OTHER_FIELDS]


def test_list_items_count_as_one_field() -> None:
    rows = [judge("1", "g", '{"l": [1, 2, 3]}', '{"l": [1, 9]}', "json")]
    assert field_scores(rows) == {
        "l[]": FieldScore(precision=0.5, recall=round(1 / 3, 6), f1=0.4, n=3),
    }
