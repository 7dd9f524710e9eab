"""Disagreements as files for the people who settle them: disagreements.csv and disagreements.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.labels.adjudication import Verdict
from data_prep.labels.label import Label
from data_prep.record_files import SEALED, Cell, write_records

DISAGREEMENTS_JSONL = "disagreements.jsonl"
COLUMNS = (
    "item", "field", "labeller", "guideline", "labelled_at", "label", "taken", "place", "row",
    "image",
)  # fmt: skip


@dataclass(frozen=True)
class Disagreement:
    """An item whose labels differ: all its labels, and the verdict on them.

    sealed: the label that is taken is a row of the exam.
    """

    item: str
    labels: tuple[Label, ...]
    verdict: Verdict
    sealed: bool = False


def write_disagreements(folder: Path, found: Iterable[Disagreement]) -> int:
    """Write both files: a record for each differing field and label; the number of records.

    Of what is in the exam stands there who labelled it and where, not as what.
    """
    return write_records(folder, "disagreements", COLUMNS, _records(found))


def _records(found: Iterable[Disagreement]) -> Iterator[tuple[Cell, ...]]:
    for each in found:
        for name in each.verdict.differing:
            for label in each.labels:
                made = label.labelling
                when = made.labelled_at.isoformat() if made.labelled_at else ""
                said = SEALED if each.sealed else label.fields.get(name, "")
                yield (
                    each.item, name, made.labeller, made.guideline, when, said,
                    label is each.verdict.taken, label.place, label.row, label.image,
                )  # fmt: skip
