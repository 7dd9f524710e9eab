"""What an answer is worth: one verdict a row, and metrics from sums over rows.

exact_match: share of rows whose answer equals the label, outer white space aside.
field_precision, field_recall, field_f1: micro averages over the fields of all rows (see `fields`):
    right / given, right / labelled, 2 right / (given + labelled).
character_error_rate: Levenshtein edits from label to answer (insertions, deletions, substitutions of
    Unicode code points, each 1), summed over rows, over the labels' characters. May exceed 1.
json_validity: share of rows whose answer is JSON.
A share of nothing is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from finetune.evaluation.fields import field_name, read_fields
from lensmith.report import FieldScore, MetricName, Unit

Verdict = Literal["right", "wrong", "missing", "extra"]
# The columns of a tally: everything that the metrics are computed from, each a sum over rows.
TALLY = ("rows", "exact", "right", "given", "labelled", "edits", "characters", "valid")
# What each metric is a share of: the column of the tally, and the unit people read.
COUNTED: dict[MetricName, tuple[str, Unit]] = {
    "exact_match": ("rows", "rows"),
    "field_precision": ("given", "fields"),
    "field_recall": ("labelled", "fields"),
    "field_f1": ("labelled", "fields"),
    "character_error_rate": ("characters", "characters"),
    "json_validity": ("rows", "rows"),
}
OTHER_FIELDS = "(in no label)"


@dataclass(frozen=True)
class FieldVerdict:
    """One field of one row; values are JSON text, None where that side has no such field."""

    path: str
    label: str | None
    answer: str | None

    @property
    def verdict(self) -> Verdict:
        """A wrong field costs precision and recall, an extra one precision, a missing one recall."""
        if self.label == self.answer:
            return "right"
        if self.label is None:
            return "extra"
        return "missing" if self.answer is None else "wrong"


@dataclass(frozen=True)
class Judged:
    """The verdict on one row's answer. edits, characters: in Unicode code points."""

    row: str
    group: str
    label: str
    answer: str
    exact: bool
    valid: bool
    edits: int
    fields: tuple[FieldVerdict, ...]

    @property
    def tally(self) -> tuple[int, ...]:
        """This row's numbers in the order of `TALLY`."""
        right = sum(field.verdict == "right" for field in self.fields)
        given = sum(field.answer is not None for field in self.fields)
        labelled = sum(field.label is not None for field in self.fields)
        return (1, self.exact, right, given, labelled, self.edits, len(self.label), self.valid)


def is_right(verdicts: Sequence[Verdict], valid: bool, exact: bool) -> bool:
    """Whether an answer is no mistake: every field right; where there are no fields, the text itself."""
    return valid and all(verdict == "right" for verdict in verdicts) if verdicts else exact


def judge(row: str, group: str, label: str, answer: str, kind: Literal["json", "text"]) -> Judged:
    """Judge one answer; of text answers the fields stay empty and `valid` False."""
    label, answer = label.strip(), answer.strip()
    fields: tuple[FieldVerdict, ...] = ()
    valid = False
    if kind == "json":
        wanted, given = read_fields(label) or {}, read_fields(answer)
        valid = given is not None
        found = given or {}
        fields = tuple(FieldVerdict(path, wanted.get(path), found.get(path)) for path in {**wanted, **found})
    edits = Levenshtein.distance(label, answer)
    return Judged(row, group, label, answer, label == answer, valid, edits, fields)


def group_tallies(judged: Sequence[Judged], groups: Sequence[str]) -> NDArray[np.float64]:
    """Sums of the rows' tallies by group: shape (groups, len(TALLY)), in the order of `groups`."""
    index = {group: number for number, group in enumerate(groups)}
    sums = np.zeros((len(groups), len(TALLY)))
    for row in judged:
        sums[index[row.group]] += row.tally
    return sums


def metric_values(tallies: NDArray[np.float64]) -> dict[MetricName, NDArray[np.float64]]:
    """Every metric of tallies of shape (..., len(TALLY)); each value has shape (...)."""
    rows, exact, right, given, labelled, edits, characters, valid = np.moveaxis(tallies, -1, 0)
    return {
        "exact_match": _share(exact, rows),
        "field_precision": _share(right, given),
        "field_recall": _share(right, labelled),
        "field_f1": _share(2 * right, given + labelled),
        "character_error_rate": _share(edits, characters),
        "json_validity": _share(valid, rows),
    }


def field_scores(judged: Iterable[Judged]) -> dict[str, FieldScore]:
    """Precision, recall and F1 of every field that a label holds, by name.

    Fields that no label holds share the last line, `OTHER_FIELDS`: a model may invent any number of them.
    """
    counts: dict[str, list[int]] = {}
    verdicts = [(field_name(field.path), field) for row in judged for field in row.fields]
    labelled_names = {name for name, field in verdicts if field.label is not None}
    for name, field in verdicts:
        count = counts.setdefault(name if name in labelled_names else OTHER_FIELDS, [0, 0, 0])
        count[0] += field.verdict == "right"
        count[1] += field.answer is not None
        count[2] += field.label is not None
    return {
        name: FieldScore(
            precision=_rounded_share(right, given),
            recall=_rounded_share(right, labelled),
            f1=_rounded_share(2 * right, given + labelled),
            n=labelled,
        )
        for name, (right, given, labelled) in sorted(
            counts.items(), key=lambda item: (item[0] == OTHER_FIELDS, item[0])
        )
    }


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(whole, dtype=float), where=whole != 0)


def _rounded_share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
