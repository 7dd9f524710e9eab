"""The fourth step: near copies of pictures and of long answers, and the split of every taken row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.assignment import Conflict, Previous, assign
from data_prep.near_answers import find_near_answers
from data_prep.refusal import Flaw, quoted
from data_prep.similar.search import find_near
from data_prep.split import SPLITS
from data_prep.strata import strata_of
from data_prep.thumbnails import ThumbnailFile
from data_prep.workbook import Workbook
from lensmith.data_settings import Data


@dataclass(frozen=True)
class Alike:
    """How many pairs of pictures and of long answers are near copies."""

    pictures: int = 0
    answers: int = 0


def split_rows(
    book: Workbook, data: Data, previous: Previous, thumbnails: ThumbnailFile, work: Path
) -> Alike:
    """Assign every taken row; a row that hangs together with two splits is refused."""
    numbers, ids, groups = book.taken()
    pairs, alike = np.zeros((2, 0), np.int64), Alike()
    if data.similar == "together":
        shown, pictures = _alike_pictures(book, thumbnails)
        said = find_near_answers(book, data, work)
        pairs, alike = np.concatenate([shown, said], 1), Alike(pictures, said.shape[1])
    left, right = np.searchsorted(np.array(numbers, np.int64), pairs)
    assigned = assign(ids, groups, (left, right), data.split, previous, strata_of(book, data))
    book.assign(
        (SPLITS[code], number) for code, number in zip(assigned.splits.tolist(), numbers, strict=True)
    )
    for conflict in assigned.conflicts:
        book.refuse(numbers[conflict.number], [_torn(conflict)])
    return alike


def _torn(conflict: Conflict) -> Flaw:
    sides = " and ".join(
        f"{f'row {quoted(side.row)}' if side.row else f'group {quoted(side.group)}'} ({side.split})"
        for side in conflict.sides
    )
    what = f"hangs together, by its group or by a near copy of its picture or answer, with {sides}"
    return Flaw("two_splits", what, "correct the group, or leave the row out: the splits stay apart")


def _alike_pictures(book: Workbook, thumbnails: ThumbnailFile) -> tuple[npt.NDArray[np.int64], int]:
    """Rows that show one picture or near copies, by their numbers, int64 [2, pairs]; pairs of near copies."""
    near = find_near(thumbnails.pictures)
    book.near(
        (thumbnails.identity(left), thumbnails.identity(right))
        for left, right in zip(near.first.tolist(), near.second.tolist(), strict=True)
    )
    # The first row that shows a picture stands for all that do.
    _, showing = np.unique(thumbnails.places, return_index=True)
    first = thumbnails.rows[showing]
    again = np.setdiff1d(np.arange(len(thumbnails.rows)), showing)
    same = np.stack([first[thumbnails.places[again]], thumbnails.rows[again]])
    return np.concatenate([same, first[np.stack([near.first, near.second])]], 1), len(near.first)
