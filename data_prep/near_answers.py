"""Rows whose long answers are near copies: who learned one has seen the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.similar.text import LEAST_LETTERS, is_long
from data_prep.similar.text_index import TextIndex
from data_prep.workbook import Workbook
from lensmith.data_settings import Data
from lensmith.progress import Progress

_ROWS_AT_ONCE = 1000


def find_near_answers(book: Workbook, data: Data, folder: Path) -> npt.NDArray[np.int64]:
    """Pairs of taken rows, by their numbers, int64 [2, pairs]; the book is told of them.

    Compared is prose: a text answer of at least `data.long_answer` words; of a JSON answer the texts in it
    that are as long by themselves, so that the fields of a form are never taken for one.
    """
    # A word has a letter at least.
    least = max(data.long_answer, LEAST_LETTERS)
    rows: list[int] = []

    def prose_of(number: int) -> str:
        return _prose(book.answer(rows[number]), data)

    def long() -> Iterator[tuple[int, str]]:
        for number, answer in book.taken_answers(least):
            if prose := _prose(answer, data):
                yield number, prose

    waiting = long()
    with (
        TextIndex(folder, book.count()) as index,
        Progress("long answers compared") as progress,
    ):
        while batch := list(islice(waiting, _ROWS_AT_ONCE)):
            index.add([text for _, text in batch])
            rows += [number for number, _ in batch]
            progress.add(len(batch))
        near = index.find(prose_of)
    pairs = np.array(rows, np.int64)[np.stack([near.first, near.second])]
    book.near_answers(pairs.T.tolist())
    return pairs


def _prose(answer: str, data: Data) -> str:
    """The long texts of an answer, "" where it has none."""
    texts = _texts(json.loads(answer)) if data.answer == "json" else iter([answer])
    return "\n".join(text for text in texts if is_long(text, data.long_answer))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
