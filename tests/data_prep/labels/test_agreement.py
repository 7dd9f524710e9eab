"""Coefficients against published worked examples and another implementation."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.labels.agreement import Agreement, IntervalAlpha, NominalAlpha, PairCounts
from data_prep.labels.label import Label
from data_prep.labels.labelling import Labelling

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": section C, four observers, twelve units.
FOUR = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)
# The same, section A: two observers, ten units, no missing data.
MEG = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0)
OWEN = (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)


def cohen_kappa(pairs: Iterable[tuple[Hashable, Hashable]]) -> float | None:
    counts = PairCounts()
    for first, second in pairs:
        counts.add(first, second)
    return counts.kappa


def units(raters: tuple[tuple[int | None, ...], ...]) -> list[list[int]]:
    return [[value for value in unit if value is not None] for unit in zip(*raters, strict=True)]


def nominal(raters: tuple[tuple[int | None, ...], ...]) -> float | None:
    alpha = NominalAlpha()
    for unit in units(raters):
        alpha.add(unit)
    return alpha.alpha


def interval(raters: tuple[tuple[int | None, ...], ...]) -> float | None:
    alpha = IntervalAlpha()
    for unit in units(raters):
        alpha.add(unit)
    return alpha.alpha


def test_krippendorff_s_worked_examples() -> None:
    assert nominal(FOUR) == pytest.approx(0.743, abs=5e-4)
    assert interval(FOUR) == pytest.approx(0.849, abs=5e-4)
    assert nominal((MEG, OWEN)) == pytest.approx(0.095, abs=5e-4)


def test_kappa_of_fifty_proposals() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: p_o 0.7, p_e 0.5, kappa 0.4."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_kappa_is_scikit_learn_s(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    ours = cohen_kappa(pairs)
    if ours is None:
        assert len({value for pair in pairs for value in pair}) == 1
        return
    first, second = zip(*pairs, strict=True)
    assert ours == pytest.approx(cohen_kappa_score(first, second))


def pairwise_alpha(items: list[list[int]], squared: bool) -> float | None:
    """Alpha from its definition: differences within items against differences among all values."""

    def difference(a: int, b: int) -> float:
        return float((a - b) ** 2 if squared else a != b)

    paired = [item for item in items if len(item) > 1]
    values = [value for item in paired for value in item]
    total = len(values)
    expected = sum(difference(a, b) for a in values for b in values) / (total * (total - 1)) if total else 0
    if not expected:
        return None
    within = [sum(difference(a, b) for a in item for b in item) / (len(item) - 1) for item in paired]
    return 1 - sum(within) / total / expected


@given(st.lists(st.lists(st.integers(-3, 3), max_size=4), max_size=12))
def test_alpha_is_its_definition(items: list[list[int]]) -> None:
    alphas = NominalAlpha(), IntervalAlpha()
    for item in items:
        for alpha in alphas:
            alpha.add(item)
    for alpha, squared in zip(alphas, (False, True), strict=True):
        expected = pairwise_alpha(items, squared)
        assert alpha.alpha == (expected if expected is None else pytest.approx(expected, abs=1e-12))


def test_large_numbers_lose_no_digits() -> None:
    near, far = IntervalAlpha(), IntervalAlpha()
    for unit in units(FOUR):
        near.add(unit)
        far.add([value + 1e12 for value in unit])
    assert far.alpha == near.alpha


def test_no_coefficient_where_there_is_nothing_to_compare() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("a", "a")] * 5) is None
    assert NominalAlpha().alpha is None
    assert nominal(((1, 1), (1, 1))) is None
    assert interval(((1, 2), (None, None))) is None


def label(labeller: str, answer: str) -> Label:
    return Label("r", "labels.jsonl:1", Labelling(labeller, "v1", datetime(2026, 1, 1, tzinfo=UTC)), answer)


def test_agreement_by_field() -> None:
    agreement = Agreement()
    agreement.add([label("ann", '{"a": 1, "b": "x"}'), label("bob", '{"a": 1, "b": "y"}')])
    agreement.add(
        [label("ann", '{"a": 2, "b": "x"}'), label("bob", '{"a": 3}'), label("cid", '{"a": 2, "b": "x"}')]
    )
    agreement.add([label("ann", '{"a": 5}')])
    b, a = sorted(agreement.fields(), key=lambda each: each.field, reverse=True)
    assert (a.field, a.items, a.percent) == ("a", 2, pytest.approx(2 / 4))
    assert (b.field, b.items, b.percent) == ("b", 2, pytest.approx(1 / 2))
    assert a.interval_alpha is not None
    assert b.interval_alpha is None
    assert a.kappa[("ann", "bob")] == pytest.approx(cohen_kappa([(1, 1), (2, 3)]))
    assert set(b.kappa) == {("ann", "bob"), ("ann", "cid")}


def test_true_is_not_one() -> None:
    agreement = Agreement()
    agreement.add([label("ann", '{"a": 1}'), label("bob", '{"a": true}')])
    (found,) = agreement.fields()
    assert found.percent == 0
    assert found.interval_alpha is None


def test_random_labels_agree_by_chance_only() -> None:
    rng = random.Random(17)
    alpha = NominalAlpha()
    for _ in range(20_000):
        alpha.add([rng.randrange(4), rng.randrange(4), rng.randrange(4)])
    assert alpha.alpha is not None
    assert math.isclose(alpha.alpha, 0, abs_tol=0.02)
