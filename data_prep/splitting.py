"""The fourth step: pictures that are near copies of each other, and the split of every taken row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.assignment import Conflict, Previous, assign
from data_prep.refusal import Flaw, quoted
from data_prep.similar.search import find_near
from data_prep.split import SPLITS
from data_prep.thumbnails import Gallery
from data_prep.workbook import Workbook
from lensmith.data_settings import Data

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Alike:
    """What hangs together: pairs of taken rows, by their order; and how many pairs of pictures are near
    copies."""

    rows: Pairs
    pictures: int


def split_rows(book: Workbook, data: Data, previous: Previous, gallery: Gallery) -> Alike:
    """Assign every taken row; a row that hangs together with two splits is refused."""
    numbers, ids, groups = book.taken()
    alike = _alike(book, numbers, gallery) if data.similar == "together" else Alike(_none(), 0)
    assigned = assign(ids, groups, alike.rows, data.split, previous)
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
    what = f"hangs together, by its group or by a near copy of its picture, with {sides}"
    return Flaw("two_splits", what, "correct the group, or leave the row out: the splits stay apart")


def _none() -> Pairs:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def _alike(book: Workbook, numbers: Sequence[int], gallery: Gallery) -> Alike:
    """Rows that show one picture, and rows whose pictures are near copies."""
    near = find_near(gallery.pictures)
    book.near(
        (gallery.identity(left), gallery.identity(right))
        for left, right in zip(near.first.tolist(), near.second.tolist(), strict=True)
    )
    rows = np.searchsorted(np.array(numbers, np.int64), gallery.rows)
    # The first row that shows a picture stands for all that do.
    _, showing = np.unique(gallery.places, return_index=True)
    first = rows[showing]
    again = np.setdiff1d(np.arange(len(rows)), showing)
    return Alike(
        (
            np.concatenate([first[gallery.places[again]], first[near.first]]),
            np.concatenate([rows[again], first[near.second]]),
        ),
        len(near.first),
    )
