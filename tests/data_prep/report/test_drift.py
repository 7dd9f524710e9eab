"""What changed since the last version: told where it matters, silent where chance does it."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from data_prep.figures.histogram import Histogram
from data_prep.figures.label_distribution import LabelDistribution
from data_prep.report.drift import Drift, Shift, find_shifts, total_variation


def body(answers: list[str], edge: int = 800, tokens: int | None = 200, refused: int = 0) -> dict[str, Any]:
    """The parts of a dataset's body that are compared."""
    labels = LabelDistribution()
    for answer in answers:
        labels.add(answer)
    rows = len(answers)
    return {
        "sources": [{"rows": rows + refused}],
        "refused": {"rows": refused, "by_reason": {"empty_answer": refused} if refused else {}},
        "labels": labels.summary(),
        "histograms": {
            "image_edge": Histogram([edge] * rows).summary(),
            "image_tokens": None if tokens is None else Histogram([tokens] * rows).summary(),
        },
    }


def forms(rows: int, blank: float = 0.03, euro: float = 0.6, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [
        json.dumps(
            {
                "account": str(draw.randrange(100_000, 1_000_000)),
                "amount": "" if draw.random() < blank else f"{draw.randrange(1000, 9999) / 100:.2f}",
                "currency": "EUR" if draw.random() < euro else draw.choice(["USD", "CHF"]),
            }
        )
        for _ in range(rows)
    ]


def words(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    return [shift.words for shift in find_shifts(new, old) if shift.words]


def test_more_blank_amounts_than_last_time() -> None:
    (said,) = words(body(forms(1000, blank=0.12, seed=2)), body(forms(800)))
    assert said.startswith("More blank \u201camount\u201d than last time: 11.6%, 2.4% before.")
    (said,) = words(body(forms(800)), body(forms(1000, blank=0.12, seed=2)))
    assert said.startswith("Fewer blank \u201camount\u201d")


@pytest.mark.slow
@pytest.mark.parametrize("rows", [12, 40, 300, 3000])
def test_chance_is_not_told(rows: int) -> None:
    for seed in range(12):
        assert words(body(forms(rows, seed=seed)), body(forms(rows, seed=seed + 100))) == []


def test_other_values_are_told_by_the_one_that_moved_most() -> None:
    (said,) = words(body(forms(900, euro=0.3)), body(forms(900, euro=0.6)))
    assert said.startswith(
        "\u201ccurrency\u201d says other things than last time: \u201cEUR\u201d stands in "
    )


def test_fields_that_come_and_go() -> None:
    old = body(['{"a": "1", "b": "2"}'] * 50)
    new = body(['{"a": "1", "c": "2"}'] * 50)
    assert words(new, old) == [
        "The field \u201cc\u201d is new.",
        "No answer has the field \u201cb\u201d any more.",
    ]


def test_answers_that_lack_a_field() -> None:
    old = body(['{"a": "1", "b": "2"}'] * 200)
    new = body(['{"a": "1", "b": "2"}'] * 120 + ['{"a": "1"}'] * 80)
    assert words(new, old) == ["More answers lack \u201cb\u201d than last time: 40.0%, 0.0% before."]


def test_another_kind_of_value() -> None:
    said = words(body(['{"a": 1}'] * 100), body(['{"a": "1"}'] * 100))
    assert said == ["\u201ca\u201d is written as another kind of value: number 100%; before, text 100%."]


def test_images_tokens_and_lengths() -> None:
    old = body(forms(200))
    said = words(body(forms(200), edge=1600, tokens=700), old)
    assert [each.split(" differ")[0] for each in said] == ["Image sizes (longer edge)", "Image tokens a row"]
    assert "typically 1,536\u20132,047 pixels now, 768\u20131,023 pixels before" in said[0]
    assert "100 of 100 images would have to change" in said[0]
    said = words(body(["a sentence of some length"] * 90), body(["word"] * 90))
    assert any(each.startswith("Lengths of \u201canswer\u201d differ") for each in said)


def test_more_refused_rows_with_the_reason_that_grew() -> None:
    (said,) = words(body(forms(200), refused=60), body(forms(200), refused=2))
    assert said.startswith(
        "More rows were refused than last time: 23.1% of what was handed over, 1.0% before."
    )
    assert said.endswith("The reason that grew most: \u201cThe answer is empty\u201d.")
    (said,) = words(body(forms(200), refused=2), body(forms(200), refused=60))
    assert said == "Fewer rows were refused than last time: 1.0% of what was handed over, 23.1% before."


def test_an_older_version_says_less() -> None:
    old = body(forms(100))
    del old["labels"], old["histograms"]
    assert [shift.what for shift in find_shifts(body(forms(100)), old)] == ["Rows refused"]
    without_base = body(forms(100), tokens=None)
    assert "Image tokens a row" not in [shift.what for shift in find_shifts(body(forms(100)), without_base)]


def test_the_distance_is_the_share_that_would_have_to_change() -> None:
    assert total_variation({"a": 60, "b": 40}, {"a": 30, "b": 70})[0] == pytest.approx(0.3)
    assert total_variation({"a": 5}, {"b": 7})[0] == pytest.approx(1)
    assert total_variation({"a": 5, "b": 5}, {"a": 50, "b": 50})[0] == 0
    assert total_variation({}, {"a": 1}) == (0, 0)


@pytest.mark.parametrize("names", ["ab", "abcdefghijkl"])
def test_chance_stays_below_its_limit_and_a_real_change_does_not(names: str) -> None:
    draw = random.Random(3)

    def drawn(size: int, first: float) -> dict[str, int]:
        weights = [first] + [(1 - first) / (len(names) - 1)] * (len(names) - 1)
        found = draw.choices(names, weights, k=size)
        return {name: found.count(name) for name in names}

    alike = [total_variation(drawn(150, 0.3), drawn(90, 0.3)) for _ in range(500)]
    assert sum(distance > limit for distance, limit in alike) <= 2
    apart = [total_variation(drawn(400, 0.7), drawn(300, 0.3)) for _ in range(50)]
    assert all(distance > limit for distance, limit in apart)


def test_values_that_one_list_does_not_tell_are_no_change() -> None:
    new, old = body(forms(900)), body(forms(900))
    field = copy.deepcopy(old["labels"]["fields"][2])
    field["values"]["values"] = field["values"]["values"][:1]
    field["values"]["others"] = 900 - field["values"]["values"][0][1]
    old["labels"]["fields"][2] = field
    assert words(new, old) == []


def test_the_largest_change_is_told_first() -> None:
    shifts = (Shift("a", "", "", 0.1, "small"), Shift("b", "", "", 0.5), Shift("c", "", "", 0.4, "large"))
    assert [each.words for each in Drift("d", {}, 0, 0, shifts).notable] == ["large", "small"]
