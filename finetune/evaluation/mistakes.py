"""The rows that the evaluation page shows: label, answer and the baseline's answer, side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from finetune.evaluation.diff import Span, marks, shortened
from finetune.evaluation.exam import ExamRow
from finetune.evaluation.fields import field_name
from finetune.evaluation.metrics import FieldVerdict, Judged, is_right
from lensmith.page import Picture, encoded_picture, picture, visible

# Cards with pictures make a page heavy; the rest is in predictions.jsonl.
MOST_MISTAKES = 60
MOST_MENDED = 6
MOST_FILTERS = 12
# Pictures with a longer edge are reduced for the page, in pixels.
LONGEST_EDGE = 1200


@dataclass(frozen=True)
class Cell:
    """One answer's value of a field, or a whole answer: spans, and whether it is right."""

    spans: tuple[Span, ...]
    right: bool
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One field (or the whole answer, name "") of a row: label, answer and, if compared, the baseline."""

    name: str
    label: tuple[Span, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Card:
    """A row as the page shows it. tags: what its filter buttons look for."""

    row: str
    group: str
    pictures: tuple[Picture, ...]
    tags: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Gallery:
    """The cards shown, and how many rows there were to show."""

    cards: tuple[Card, ...]
    total: int

    @property
    def counts(self) -> dict[str, int]:
        """How many of the cards carry each tag, most first; at most `MOST_FILTERS` tags."""
        return dict(Counter(tag for card in self.cards for tag in card.tags).most_common(MOST_FILTERS))


def mistakes(folder: Path, rows: dict[str, ExamRow], judged: Sequence[list[Judged]]) -> Gallery:
    """Rows that the subject got wrong: first those that the baseline had right, then by wrong fields."""
    wrong = [each for each in zip(*judged, strict=True) if not _right(each[0])]
    wrong.sort(key=lambda each: (not (len(each) == 2 and _right(each[1])), -_errors(each[0]), each[0].row))
    return Gallery(tuple(_card(folder, rows, each) for each in wrong[:MOST_MISTAKES]), len(wrong))


def mended(folder: Path, rows: dict[str, ExamRow], judged: Sequence[list[Judged]]) -> Gallery:
    """Rows that the baseline got wrong and the subject right, in the held-out set's order."""
    better = [each for each in zip(*judged, strict=True) if len(each) == 2 and _right(each[0])]
    better = [each for each in better if not _right(each[1])]
    return Gallery(tuple(_card(folder, rows, each) for each in better[:MOST_MENDED]), len(better))


def _right(judged: Judged) -> bool:
    return is_right([field.verdict for field in judged.fields], judged.valid, judged.exact)


def _errors(judged: Judged) -> int:
    return sum(field.verdict != "right" for field in judged.fields) or judged.edits


def _card(folder: Path, rows: dict[str, ExamRow], contestants: tuple[Judged, ...]) -> Card:
    subject = contestants[0]
    row = rows[subject.row]
    return Card(
        row=visible(row.id),
        group=visible(row.group),
        pictures=tuple(_picture(folder / name) for name in row.images),
        tags=_tags(contestants),
        lines=_field_lines(contestants) if subject.fields else (_whole_line(contestants),),
    )


def _tags(contestants: tuple[Judged, ...]) -> tuple[str, ...]:
    subject = contestants[0]
    tags = {f"field:{field_name(f.path)}" for f in subject.fields if f.verdict != "right" and f.label}
    if subject.fields and not subject.valid:
        tags.add("not-json")
    if len(contestants) == 2 and _right(contestants[1]) and not _right(subject):
        tags.add("lost")
    return tuple(sorted(tags))


def _field_lines(contestants: tuple[Judged, ...]) -> tuple[Line, ...]:
    by_path = [{field.path: field for field in judged.fields} for judged in contestants]
    paths = list(dict.fromkeys(path for fields in by_path for path in fields))
    lines = [
        Line(
            visible(shortened(path)),
            _label_spans(path, by_path),
            tuple(_cell(fields.get(path)) for fields in by_path),
        )
        for path in paths
    ]
    if not all(judged.valid for judged in contestants):
        cells = tuple(
            Cell((), True) if judged.valid else _raw_cell(judged, "not JSON") for judged in contestants
        )
        lines.append(Line("(whole answer)", (), cells))
    return tuple(lines)


def _label_spans(path: str, by_path: list[dict[str, FieldVerdict]]) -> tuple[Span, ...]:
    field = by_path[0].get(path)
    if field is None or field.label is None:
        return ()
    return (
        marks(_plain(field.label), _plain(field.answer or ""))[0] if field.answer else _unmarked(field.label)
    )


def _cell(field: FieldVerdict | None) -> Cell:
    if field is None:
        return Cell((), True)
    if field.answer is None:
        return Cell((), False, "missing")
    if field.label is None:
        return Cell((Span(visible(shortened(_plain(field.answer))), True),), False, "not in the label")
    if field.label == field.answer:
        return Cell(_unmarked(field.answer), True)
    # Values that read alike and differ in kind (3 and "3") keep their JSON form, or no mark would show.
    if _plain(field.label) == _plain(field.answer):
        return Cell((Span(visible(shortened(field.answer)), True),), False, f"the label is {field.label}")
    return Cell(marks(_plain(field.label), _plain(field.answer))[1], False)


def _whole_line(contestants: tuple[Judged, ...]) -> Line:
    subject = contestants[0]
    cells = tuple(
        Cell(marks(judged.label, judged.answer)[1], judged.exact, "" if judged.answer else "empty")
        for judged in contestants
    )
    return Line("answer", marks(subject.label, subject.answer)[0], cells)


def _raw_cell(judged: Judged, note: str) -> Cell:
    if not judged.answer:
        return Cell((), False, "empty answer")
    return Cell((Span(visible(shortened(judged.answer)), False),), False, note)


def _plain(value: str) -> str:
    content = json.loads(value)
    return content if isinstance(content, str) else value


def _unmarked(value: str) -> tuple[Span, ...]:
    return (Span(visible(shortened(_plain(value))), False),)


def _picture(path: Path) -> Picture:
    with Image.open(path) as image:
        if max(image.size) <= LONGEST_EDGE:
            return encoded_picture(path.read_bytes(), "png", image.size)
        return picture(image.convert("RGB"), LONGEST_EDGE)
