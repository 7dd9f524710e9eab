"""Rows whose long answers are near copies: who learned one has seen the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.similar.clusters import Clusters
from data_prep.similar.text import LEAST_LETTERS, is_long
from data_prep.similar.text_index import NearTexts, TextIndex
from data_prep.workbook import Workbook
from lensmith.data_settings import Data
from lensmith.progress import Progress
from lensmith.row_file import RowFile

_ROWS_AT_ONCE = 1000


def find_near_answers(book: Workbook, data: Data, folder: Path) -> npt.NDArray[np.int64]:
    """Pairs of taken rows, by their numbers, int64 [2, pairs]; the book is told of them.

    Compared is prose: a text answer of at least `data.long_answer` words; of a JSON answer the texts in it
    that are as long by themselves, so that the fields of a form are never taken for one.
    """
    rows, near = _compare(book, data, folder, [], str)
    pairs = np.array(rows, np.int64)[np.stack([near.first, near.second])]
    book.near_answers(pairs.T.tolist())
    return pairs


def find_exam_answers(book: Workbook, data: Data, folder: Path, exam: RowFile) -> list[tuple[int, str]]:
    """(taken row, the exam's row) for every taken row whose long answer is nearly one of the exam's."""
    answers = enumerate(sample.answer for sample in exam.samples())
    sealed = [place for place, answer in answers if _prose(answer, data, sealed=True)]
    rows, near = _compare(book, data, folder, sealed, lambda place: exam[place].sample.answer)
    # A row may repeat another that repeats the exam: clusters tell, not pairs.
    clusters = Clusters(len(sealed) + len(rows))
    clusters.join(near.first, near.second)
    reached = zip(rows, clusters.labels()[len(sealed) :].tolist(), strict=True)
    return [(number, exam[sealed[label]].sample.id) for number, label in reached if label < len(sealed)]


def _compare(
    book: Workbook, data: Data, folder: Path, sealed: Sequence[int], answer_of: Callable[[int], str]
) -> tuple[list[int], NearTexts]:
    """The taken rows with prose; near copies among the sealed answers and, numbered behind them, theirs."""
    # A word has a letter at least.
    least = max(data.long_answer, LEAST_LETTERS)
    rows: list[int] = []

    def prose_of(number: int) -> str:
        if number < len(sealed):
            return _prose(answer_of(sealed[number]), data, sealed=True)
        return _prose(book.answer(rows[number - len(sealed)]), data)

    def long() -> Iterator[tuple[int, str]]:
        for number, answer in book.taken_answers(least):
            if prose := _prose(answer, data):
                yield number, prose

    waiting = long()
    with (
        TextIndex(folder, len(sealed) + book.count()) as index,
        Progress("long answers compared") as progress,
    ):
        for at in range(0, len(sealed), _ROWS_AT_ONCE):
            index.add([prose_of(number) for number in range(at, min(at + _ROWS_AT_ONCE, len(sealed)))])
        while batch := list(islice(waiting, _ROWS_AT_ONCE)):
            index.add([text for _, text in batch])
            rows += [number for number, _ in batch]
            progress.add(len(batch))
        return rows, index.find(prose_of)


def _prose(answer: str, data: Data, sealed: bool = False) -> str:
    """The long texts of an answer, "" where it has none."""
    # An exam's answers may be of either kind.
    texts = _texts(_content(answer)) if sealed or data.answer == "json" else iter([answer])
    return "\n".join(text for text in texts if is_long(text, data.long_answer))


def _content(answer: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return answer


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
