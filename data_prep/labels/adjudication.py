"""Which of several labels of one item is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.flag import Flag
from data_prep.labels.label import Label
from data_prep.refusal import Flaw, quoted

_MEND = "agree on one answer, and hand over that row only"


@dataclass(frozen=True)
class Verdict:
    """The label that is taken, or None with `flaw` for all of them.

    `differing` are the fields whose labels differ; `flag` goes with the taken row where there are any.
    """

    taken: Label | None
    differing: tuple[str, ...]
    flag: Flag | None = None
    flaw: Flaw | None = None


def adjudicate(labels: Sequence[Label], rule: str) -> Verdict:
    """The verdict on all labels of one item (at least one), by a rule of `Labels.rule`.

    Where all say the same the first is taken. `majority`: what more than half of the labels say; `latest`:
    the label with the latest time, which must be one; `labeller: NAME`: that person's, which must be one;
    `refuse`: none. Where the rule does not decide, none is taken.
    """
    differing = differing_fields(labels)
    if len({label.same for label in labels}) == 1:
        return Verdict(labels[0], ())
    taken, why = _decide(labels, rule)
    shown = f"{_people(labels)} differ in {', '.join(differing)}"
    if taken is None:
        return Verdict(None, differing, flaw=Flaw("labels_disagree", f"{shown}: {why}", _MEND))
    what = f"{shown}: row {quoted(taken.row)} is taken, {why}"
    flag = Flag("labels_differ", what, "look at it once more: see disagreements.csv")
    return Verdict(taken, differing, flag=flag)


def differing_fields(labels: Sequence[Label]) -> tuple[str, ...]:
    """The fields that the labels do not all give alike, in the order of the first label's."""
    names = dict.fromkeys(name for label in labels for name in label.fields)
    missing = object()
    return tuple(
        name
        for name in names
        if len(
            {(type(value) is bool, value) for value in (label.fields.get(name, missing) for label in labels)}
        )
        > 1
    )


def _decide(labels: Sequence[Label], rule: str) -> tuple[Label | None, str]:
    if rule == "majority":
        (most, times), *_ = Counter(label.same for label in labels).most_common(1)
        if times * 2 <= len(labels):
            return None, "no answer has more than half of the labels"
        return next(label for label in labels if label.same == most), f"as {times} of {len(labels)} say"
    if rule == "latest":
        timed = [(label.labelling.labelled_at, label) for label in labels if label.labelling.labelled_at]
        if len(timed) < len(labels):
            return None, "not every label says when it was made"
        last = max(when for when, _ in timed)
        latest = [label for when, label in timed if when == last]
        if len({label.same for label in latest}) > 1:
            return None, "the latest labels were made at the same time"
        return latest[0], "the latest"
    if rule.startswith("labeller:"):
        name = rule.partition(":")[2].strip()
        theirs = [label for label in labels if label.labelling.labeller == name]
        if len({label.same for label in theirs}) != 1:
            return None, f"{quoted(name)} gave {'several answers' if theirs else 'no label'}"
        return theirs[0], f"by {quoted(name)}"
    return None, "the recipe takes no side (data.labels.rule: refuse)"


def _people(labels: Sequence[Label]) -> str:
    names = dict.fromkeys(label.labelling.labeller or f"the labeller of {label.place}" for label in labels)
    return " and ".join(names)
