"""How far labellers agree, beyond what chance would give. Items come one at a time, only counts are kept.

Percent agreement: share of the pairs of labels of one item that are equal.
Cohen's kappa: J. Cohen, "A Coefficient of Agreement for Nominal Scales", Educational and Psychological
Measurement 20 (1960) 37-46: (p_o - p_e) / (1 - p_e), for two raters.
Krippendorff's alpha: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C:
1 - D_o / D_e, for any number of raters, labels missing or not; differences nominal or interval (squared).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from data_prep.labels.label import Label, Value


@dataclass
class PairCounts:
    """What kappa needs of two raters: how often each gave each value, and how often both gave the same."""

    first: Counter[Hashable] = field(default_factory=Counter)
    second: Counter[Hashable] = field(default_factory=Counter)
    equal: int = 0

    def add(self, first: Hashable, second: Hashable) -> None:
        """One item's two labels."""
        self.first[first] += 1
        self.second[second] += 1
        self.equal += first == second

    @property
    def items(self) -> int:
        return self.first.total()

    @property
    def kappa(self) -> float | None:
        """None without items, or where chance alone is perfect."""
        items = self.items
        by_chance = sum(count * self.second[value] for value, count in self.first.items())
        if items == 0 or by_chance == items * items:
            return None
        observed, expected = Fraction(self.equal, items), Fraction(by_chance, items * items)
        return float((observed - expected) / (1 - expected))


@dataclass
class NominalAlpha:
    """Krippendorff's alpha where values are equal or not."""

    values: Counter[Hashable] = field(default_factory=Counter)
    # Sum over items of (ordered pairs that differ) / (labels - 1).
    _disagreement: Fraction = Fraction(0)

    def add(self, labels: Sequence[Hashable]) -> None:
        """The labels of one item; one label alone cannot be compared and is left out."""
        if len(labels) < 2:
            return
        counts = Counter(labels)
        self.values.update(counts)
        differing = len(labels) ** 2 - sum(count * count for count in counts.values())
        self._disagreement += Fraction(differing, len(labels) - 1)

    @property
    def alpha(self) -> float | None:
        """None where there is nothing to compare, or all values are one."""
        total = self.values.total()
        by_chance = total * total - sum(count * count for count in self.values.values())
        if not by_chance:
            return None
        return float(1 - self._disagreement * (total - 1) / by_chance)


@dataclass
class IntervalAlpha:
    """Krippendorff's alpha where values are numbers: twice the distance is four times the disagreement."""

    _labels: int = 0
    _sum: Fraction = Fraction(0)
    _squares: Fraction = Fraction(0)
    _disagreement: Fraction = Fraction(0)

    def add(self, labels: Sequence[float]) -> None:
        """The labels of one item, finite numbers; one label alone is left out."""
        if len(labels) < 2:
            return
        # Fractions are exact: differences of squares of large numbers lose no digits.
        values = [Fraction(label) for label in labels]
        total, squares = sum(values, Fraction(0)), sum((value * value for value in values), Fraction(0))
        self._labels += len(values)
        self._sum += total
        self._squares += squares
        self._disagreement += 2 * (len(values) * squares - total * total) / (len(values) - 1)

    @property
    def alpha(self) -> float | None:
        """None where there is nothing to compare, or all values are one."""
        by_chance = 2 * (self._labels * self._squares - self._sum * self._sum)
        if not by_chance:
            return None
        return float(1 - self._disagreement * (self._labels - 1) / by_chance)


@dataclass(frozen=True)
class FieldAgreement:
    """How far labellers agree on one field.

    `items` had two labels or more; `percent` is 0 to 1; `alpha` nominal; `interval_alpha` where every value
    was a number; `kappa` by the names of two labellers who labelled an item in common. A coefficient is None
    where it is not defined: everybody always gave one and the same value.
    """

    field: str
    items: int
    percent: float
    alpha: float | None
    interval_alpha: float | None
    kappa: dict[tuple[str, str], float | None]


@dataclass
class _Counts:
    items: int = 0
    pairs: int = 0
    equal: int = 0
    nominal: NominalAlpha = field(default_factory=NominalAlpha)
    interval: IntervalAlpha | None = field(default_factory=IntervalAlpha)
    raters: dict[tuple[str, str], PairCounts] = field(default_factory=dict)


class Agreement:
    """Agreement by field over all items, added one at a time."""

    def __init__(self) -> None:
        self._fields: dict[str, _Counts] = {}

    def add(self, labels: Sequence[Label]) -> None:
        """All labels of one item. A label that lacks a field counts as missing in that field."""
        for name in dict.fromkeys(name for label in labels for name in label.fields):
            given = [
                (label.labelling.labeller, label.fields[name]) for label in labels if name in label.fields
            ]
            if len(given) >= 2:
                self._add(self._fields.setdefault(name, _Counts()), given)

    def _add(self, counts: _Counts, given: list[tuple[str, Value]]) -> None:
        keys = [_key(value) for _, value in given]
        counts.items += 1
        counts.pairs += math.comb(len(keys), 2)
        counts.equal += sum(math.comb(times, 2) for times in Counter(keys).values())
        counts.nominal.add(keys)
        numbers = _numbers([value for _, value in given])
        if counts.interval is not None and len(numbers) == len(given):
            counts.interval.add(numbers)
        else:
            counts.interval = None
        # A labeller's last label of an item counts for kappa; nobody is compared with themselves.
        by_labeller = {labeller: key for (labeller, _), key in zip(given, keys, strict=True) if labeller}
        names = sorted(by_labeller)
        for at, first in enumerate(names):
            for second in names[at + 1 :]:
                pair = counts.raters.setdefault((first, second), PairCounts())
                pair.add(by_labeller[first], by_labeller[second])

    def fields(self) -> list[FieldAgreement]:
        """Every field that two labels of one item had, the least agreed upon first."""
        found = [
            FieldAgreement(
                name,
                counts.items,
                counts.equal / counts.pairs,
                counts.nominal.alpha,
                counts.interval.alpha if counts.interval else None,
                {names: pair.kappa for names, pair in sorted(counts.raters.items())},
            )
            for name, counts in self._fields.items()
        ]
        return sorted(found, key=lambda each: (each.percent, each.field))


def _numbers(values: list[Value]) -> list[float]:
    return [
        value
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]


def _key(value: Value) -> Hashable:
    # True equals 1 in Python and is another label.
    return (isinstance(value, bool), value)
