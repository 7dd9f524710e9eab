"""Several labels of one thing: which row is taken for all of them, and how far the labellers agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from data_prep.labels.adjudication import Verdict, adjudicate
from data_prep.labels.agreement import Agreement
from data_prep.labels.disagreements import Disagreement
from data_prep.labels.label import Label, item_of
from data_prep.labels.labelling import Labelling, read_labelling
from data_prep.refusal import Flaw
from data_prep.stated_sample import with_pictures
from data_prep.workbook import BookRow, Workbook
from lensmith.data_settings import Labels


def settle_labels(book: Workbook, settings: Labels) -> list[dict[str, Any]]:
    """Leave out, for every thing that several rows label, all rows but the one that counts.

    Rows with a flaw of their own are not asked. Gives the agreement, a mapping a field, the least agreed
    upon first.
    """
    if settings.same == "none":
        return []
    for row in book.readable():
        if row.flaws or any(isinstance(each, Flaw) for each in book.pictures.shown_by(row.number)):
            continue
        if item := item_of(with_pictures(row.sample, book.pictures.shown_by(row.number)), settings.same):
            book.name_item(row.number, item)
    agreement = Agreement()
    for _, numbered, verdict in _verdicts(book, settings):
        agreement.add([label for _, label in numbered])
        for number, label in numbered:
            if verdict.flaw is not None:
                book.refuse(number, [verdict.flaw])
            elif label is not verdict.taken:
                book.leave_out(number, "label")
            elif verdict.flag is not None:
                book.add_flag(number, verdict.flag)
    return [_told(each) for each in agreement.fields()]


def _told(field: Any) -> dict[str, Any]:
    told = asdict(field)
    # JSON has no pairs for keys.
    told["kappa"] = [{"labellers": list(names), "kappa": kappa} for names, kappa in field.kappa.items()]
    return told


def disagreements(book: Workbook, settings: Labels) -> Iterator[Disagreement]:
    """Every thing whose labels differ, with all of them and the verdict; asked once the rows are split."""
    if settings.same == "none":
        return
    for item, numbered, verdict in _verdicts(book, settings):
        if verdict.differing:
            sealed = any(book.is_sealed(number) for number, _ in numbered)
            yield Disagreement(item, tuple(label for _, label in numbered), verdict, sealed)


def _verdicts(book: Workbook, settings: Labels) -> Iterator[tuple[str, list[tuple[int, Label]], Verdict]]:
    for item in book.items():
        numbered = [(row.number, _label(row)) for row in book.of_item(item)]
        yield item, numbered, adjudicate([label for _, label in numbered], settings.rule)


def _label(row: BookRow) -> Label:
    sample = row.sample
    made = read_labelling(sample.origin, False, datetime.now(UTC))
    # Screening refused the rows whose labelling cannot be read.
    assert isinstance(made, Labelling)
    image = next((each.path for each in (*sample.stills, *sample.videos)), "")
    return Label(sample.id, row.place, made, sample.answer, image)
