"""What earlier datasets bind: the split of their rows, and the pictures of their exams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.assignment import Previous
from data_prep.near_answers import find_exam_answers
from data_prep.refusal import Flaw, quoted
from data_prep.similar.exams import find_exam_pictures
from data_prep.split import SplitName
from data_prep.thumbnails import ThumbnailFile
from data_prep.workbook import Workbook
from lensmith.artifact import Artifact
from lensmith.data_settings import Data
from lensmith.dataset import Split, read_held_out, read_split
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.row_file import RowFile

_LEAVE_OUT = "leave it out: a model that learned it could not be examined there"
_TRAINED: tuple[Split, ...] = ("train", "validation")


def resolve_previous(data: Data, home: Home) -> Artifact | None:
    """The dataset that the recipe follows. Raises InputError where `data.previous` names none."""
    if not data.previous:
        return None
    found = home.resolve(data.previous)
    if found.kind != "dataset":
        raise InputError(
            f"{found.short} is not a dataset",
            [Problem("names another kind of artifact", "data.previous", "lensmith list --kind dataset")],
        )
    return found


def resolve_exams(data: Data, home: Home) -> list[Artifact]:
    """The held-out sets that the recipe guards. Raises InputError with every one that is none."""
    found = [home.resolve(each) for each in data.exams]
    problems = [
        Problem(f"{each.short} is not a held-out set", f"data.exams[{at}]")
        for at, each in enumerate(found)
        if each.kind != "held_out"
    ]
    if problems:
        raise InputError("data.exams names what is no exam", problems)
    return found


def read_previous(dataset: Artifact | None, home: Home) -> Previous:
    """Where every row and group of the earlier dataset lies. The read of its exam is logged."""
    rows: dict[str, SplitName] = {}
    groups: dict[str, SplitName] = {}

    def take(split: SplitName, file: RowFile) -> None:
        for ids, names in file.columns("id", "group"):
            rows.update(dict.fromkeys(ids.to_pylist(), split))
            groups.update(dict.fromkeys(names.to_pylist(), split))

    if dataset is not None:
        for split in _TRAINED:
            take(split, read_split(dataset, split))
        held_out = home.by_id(dataset.body["held_out"])
        take("held_out", read_held_out(home, held_out, "its rows stay held out in the next dataset"))
    return Previous(rows, groups)


def open_exams(exams: Sequence[Artifact], home: Home) -> dict[str, RowFile]:
    """The rows of each held-out set, by its id. The reads are logged."""
    return {
        exam.id: read_held_out(home, exam, "no new row may repeat its pictures or long answers")
        for exam in exams
    }


def most_pictures(exams: Mapping[str, RowFile]) -> int:
    """Pictures of the exam that has the most."""
    return max((len(_sizes(rows)) for rows in exams.values()), default=0)


def refuse_exam_rows(
    book: Workbook, exams: Mapping[str, RowFile], thumbnails: ThumbnailFile, data: Data, work: Path
) -> None:
    """Refuse every taken row that shows, exactly or nearly, a picture of an earlier exam, or gives one of its
    long answers."""
    found: dict[int, list[Flaw]] = {}
    for exam, rows in exams.items():
        told = [
            *(
                (number, f"shows the picture of row {quoted(row)}")
                for number, row in _showing(rows, thumbnails)
            ),
            *(
                (number, f"gives nearly the answer of row {quoted(row)}")
                for number, row in find_exam_answers(book, data, work, rows)
            ),
        ]
        for number, what in told:
            flaw = Flaw("old_exam", f"{what} of held_out-{exam[:12]}", _LEAVE_OUT)
            found.setdefault(number, []).append(flaw)
    for number, flaws in found.items():
        book.refuse(number, dict.fromkeys(flaws))
    if found:
        thumbnails.leave_out(found)


def _showing(exam: RowFile, thumbnails: ThumbnailFile) -> Iterator[tuple[int, str]]:
    """(taken row, the exam's row) for every picture that both show."""
    sizes = _sizes(exam)
    prints = (each.as_py() for (column,) in exam.image_columns("fingerprint") for each in column)
    hits = dict(find_exam_pictures(thumbnails.behind(sizes, prints), len(sizes)))
    # Those without contrast are compared by their pixels alone.
    digests = (text for (column,) in exam.image_columns("digest") for text in column.to_pylist())
    sealed = {bytes.fromhex(digest): place for place, digest in enumerate(digests)}
    for place in range(len(thumbnails.pictures)):
        exact = sealed.get(thumbnails.identity(place))
        if exact is not None:
            hits.setdefault(place, exact)
    ids = _shown_by(exam) if hits else {}
    for number, place in zip(thumbnails.rows.tolist(), thumbnails.places.tolist(), strict=True):
        if place in hits:
            yield number, ids[hits[place]]


def _shown_by(rows: RowFile) -> dict[int, str]:
    """The first row that shows each picture, by the picture's place."""
    shown: dict[int, str] = {}
    for ids, places in rows.columns("id", "images"):
        for row, images in zip(ids.to_pylist(), places.to_pylist(), strict=True):
            for place in images:
                shown.setdefault(place, row)
    return shown


def _sizes(rows: RowFile) -> npt.NDArray[np.int32]:
    """(width, height) of each picture, int32 [pictures, 2]."""
    parts = [np.stack(batch, 1) for batch in rows.image_columns("width", "height")]
    return np.concatenate([np.zeros((0, 2)), *parts]).astype(np.int32)
