"""What changed since the previous version of a dataset, in figures and in words.

The measure is the total variation distance: the least share of rows that would have to say something else for
the two distributions to be one (Levin and Peres, "Markov Chains and Mixing Times", proposition 4.2). It needs
no made-up counts for what one version lacks, as the population stability index does, and can be said plainly:
"31 of 100 rows".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.figures.histogram import median_bin
from data_prep.refusal import TITLES

# What people would call another distribution, and another share; both must also exceed what chance gives.
NOTABLE_DISTANCE = 0.1
NOTABLE_SHARE = 0.02
# Of bins that vary on their own; of a share, whose two bins vary as one, about three and a half.
_DEVIATIONS = 6.0


@dataclass(frozen=True)
class Shift:
    """One thing compared: what, how it was and is, in words; the total variation distance; and one sentence
    for people, "" where nothing notable changed."""

    what: str
    before: str
    now: str
    distance: float
    words: str = ""


@dataclass(frozen=True)
class Drift:
    """A dataset compared with its previous version, whose artifact is called `previous`.

    rows: (before, now) by split. added, removed: rows by id, of training and validation.
    """

    previous: str
    rows: dict[str, tuple[int, int]]
    added: int
    removed: int
    shifts: tuple[Shift, ...]

    @property
    def notable(self) -> tuple[Shift, ...]:
        """The shifts that somebody should know of, the largest first."""
        return tuple(sorted((each for each in self.shifts if each.words), key=lambda each: -each.distance))


def find_shifts(body: Mapping[str, Any], previous: Mapping[str, Any]) -> tuple[Shift, ...]:
    """Everything that the bodies of two datasets let compare.

    Of a version whose intake was removed, nobody knows what was refused.
    """
    shifts = [_refused(body, previous)] if "refused" in previous else []
    if "labels" in previous:
        shifts += _fields(body["labels"], previous["labels"])
    if "histograms" in previous:
        new, old = body["histograms"], previous["histograms"]
        shifts.append(
            _histogram("Image sizes (longer edge)", "pixels", "images", new["image_edge"], old["image_edge"])
        )
        if new["image_tokens"] and old["image_tokens"]:
            shifts.append(
                _histogram("Image tokens a row", "tokens", "rows", new["image_tokens"], old["image_tokens"])
            )
    return tuple(shifts)


def total_variation(now: Mapping[str, int], before: Mapping[str, int]) -> tuple[float, float]:
    """(distance of two distributions given as counts, the distance that chance alone hardly exceeds).

    Chance: two independent draws from the distribution that both make together. The difference of a bin is
    then normal with mean 0 and some deviation s, half its amount has the mean s / sqrt(2 pi) and the variance
    s^2 (1 - 2 / pi) / 4; the second figure is the sum of the means and six deviations. (0, 0) where either is
    empty.
    """
    n, m = sum(now.values()), sum(before.values())
    if not n or not m:
        return 0.0, 0.0
    distance = mean = variance = 0.0
    for name in now.keys() | before.keys():
        a, b = now.get(name, 0), before.get(name, 0)
        distance += abs(a / n - b / m) / 2
        share = (a + b) / (n + m)
        spread = share * (1 - share) * (1 / n + 1 / m)
        mean += math.sqrt(spread / (2 * math.pi))
        variance += spread * (1 - 2 / math.pi) / 4
    return distance, mean + _DEVIATIONS * math.sqrt(variance)


def _is_notable(found: tuple[float, float], least: float) -> bool:
    distance, chance = found
    return distance >= least and distance > chance


def _share(
    what: str, now: tuple[int, int], before: tuple[int, int], say: Callable[[str, str, str], str]
) -> Shift:
    """A share (part, all) compared; `say` makes the sentence of "More" or "Fewer" and the two shares."""
    found = total_variation(
        {"part": now[0], "rest": now[1] - now[0]}, {"part": before[0], "rest": before[1] - before[0]}
    )
    new, old = (part / whole if whole else 0.0 for part, whole in (now, before))
    words = ""
    if _is_notable(found, NOTABLE_SHARE):
        words = say("More" if new > old else "Fewer", f"{new:.1%}", f"{old:.1%}")
    return Shift(what, f"{old:.1%}", f"{new:.1%}", found[0], words)


def _refused(body: Mapping[str, Any], previous: Mapping[str, Any]) -> Shift:
    new, old = body["refused"], previous["refused"]

    def say(more: str, now: str, before: str) -> str:
        told = f"{more} rows were refused than last time: {now} of what was handed over, {before} before."
        grown = {code: count - old["by_reason"].get(code, 0) for code, count in new["by_reason"].items()}
        code = max(grown, key=lambda each: grown[each], default=None)
        if code is None or grown[code] <= 0:
            return told
        return f"{told} The reason that grew most: {quoted(TITLES[code])}."

    return _share("Rows refused", (new["rows"], _handed(body)), (old["rows"], _handed(previous)), say)


def _handed(body: Mapping[str, Any]) -> int:
    return sum(source["rows"] for source in body["sources"])


def _fields(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[Shift]:
    new = {field["name"]: field for field in now["fields"]}
    old = {field["name"]: field for field in before["fields"]}
    shifts: list[Shift] = []
    for name in [*new, *(name for name in old if name not in new)]:
        if name in new and name in old:
            shifts += _field(name, (new[name], now["rows"]), (old[name], before["rows"]))
        else:
            shifts.append(_field_of_one(name, name in new))
    return shifts


def _field_of_one(name: str, is_new: bool) -> Shift:
    said = (
        f"The field {quoted(name)} is new." if is_new else f"No answer has the field {quoted(name)} any more."
    )
    absent = "no answer has it"
    pair = (absent, "there") if is_new else ("there", absent)
    return Shift(f"{quoted(name)} is there", *pair, 1.0, said)


def _field(
    name: str, now: tuple[Mapping[str, Any], int], before: tuple[Mapping[str, Any], int]
) -> list[Shift]:
    (new, new_rows), (old, old_rows) = now, before

    def missing(more: str, share: str, was: str) -> str:
        return f"{more} answers lack {quoted(name)} than last time: {share}, {was} before."

    def blank(more: str, share: str, was: str) -> str:
        return f"{more} blank {quoted(name)} than last time: {share}, {was} before."

    lacking = (new_rows - new["rows"], new_rows), (old_rows - old["rows"], old_rows)
    empty = (new["empty"], new["rows"]), (old["empty"], old["rows"])
    shifts = [
        _share(f"{quoted(name)} missing", *lacking, missing),
        _share(f"{quoted(name)} blank", *empty, blank),
        _kinds(name, new["kinds"], old["kinds"]),
        _values(name, new["values"], old["values"]),
        _histogram(f"Lengths of {quoted(name)}", "characters", "rows", new["lengths"], old["lengths"]),
    ]
    return [shift for shift in shifts if shift.distance or shift.what.endswith("blank")]


def _kinds(name: str, now: Mapping[str, int], before: Mapping[str, int]) -> Shift:
    found = total_variation(now, before)
    words = ""
    if _is_notable(found, NOTABLE_SHARE):
        words = (
            f"{quoted(name)} is written as another kind of value: {_listed(now)}; before, {_listed(before)}."
        )
    return Shift(f"Kind of {quoted(name)}", _listed(before), _listed(now), found[0], words)


def _listed(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return ", ".join(f"{name} {count / total:.0%}" for name, count in counts.items()) or "none"


def _values(name: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> Shift:
    """Compared over the values that both versions count; the others are one. Merging values never makes the
    distance larger, so what is said is at least true of so many rows."""
    new, old = _counted(now, before), _counted(before, now)
    found = total_variation(new, old)
    words = ""
    if _is_notable(found, NOTABLE_DISTANCE):
        sums = sum(new.values()), sum(old.values())
        by = {key: new.get(key, 0) / sums[0] - old.get(key, 0) / sums[1] for key in sorted(new | old) if key}
        key = max(by, key=lambda each: abs(by[each]))
        share, was = new.get(key, 0) / sums[0], old.get(key, 0) / sums[1]
        words = (
            f"{quoted(name)} says other things than last time: {quoted(key)} stands in {share:.1%} of the"
            f" rows that fill it, {was:.1%} before."
        )
    return Shift(f"Values of {quoted(name)}", _commonest(before), _commonest(now), found[0], words)


def _counted(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, int]:
    """Counts of the values that both lists tell; "" stands for all others."""
    counts = dict(mine["values"])
    known = dict(other["values"])
    # A complete list also tells which values it lacks.
    told = {key: count for key, count in counts.items() if key in known or not other["others"]}
    return {**told, "": mine["rows"] - sum(told.values())}


def _commonest(values: Mapping[str, Any]) -> str:
    if not values["values"]:
        return f"{values['distinct']:,} values, none twice" if values["rows"] else "none"
    text, count = values["values"][0]
    return f"most often {quoted(text)} ({count / values['rows']:.1%})"


def _histogram(what: str, unit: str, noun: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> Shift:
    found = total_variation(
        {str(start): count for start, _, count in now["bins"]},
        {str(start): count for start, _, count in before["bins"]},
    )
    middle, was = (_range(median_bin(dict(each)), unit) for each in (now, before))
    words = ""
    if _is_notable(found, NOTABLE_DISTANCE):
        words = (
            f"{what} differ from last time: typically {middle} now, {was} before."
            f" {round(found[0] * 100)} of 100 {noun} would have to change to look like last time."
        )
    return Shift(what, was, middle, found[0], words)


def _range(edges: tuple[int, int], unit: str) -> str:
    start, end = edges
    return f"{start:,} {unit}" if end <= start + 1 else f"{start:,}\N{EN DASH}{end - 1:,} {unit}"


def quoted(text: str) -> str:
    """`text` in the quotes of print."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"
