"""The third step: each row, in order, taken or refused with all its flaws."""

from __future__ import annotations

from collections.abc import Mapping

from data_prep.duplicates import answer_digest, question_digest, repetitions
from data_prep.refusal import Flaw
from data_prep.regions import size_flaws
from data_prep.workbook import BookRow, Workbook

_ROWS_AT_ONCE = 1000


def judge_rows(book: Workbook, more: Mapping[int, Flaw]) -> None:
    """Judge every row that is undecided by its conversation, its pictures and the rows taken before it.

    `more` are flaws known from elsewhere, by the row's number.
    """
    book.db.execute("BEGIN")
    for at, row in enumerate(book.readable(undecided=True), start=1):
        _judge(book, row, more.get(row.number))
        if at % _ROWS_AT_ONCE == 0:
            book.db.execute("COMMIT")
            book.db.execute("BEGIN")
    book.db.execute("COMMIT")


def _judge(book: Workbook, row: BookRow, more: Flaw | None) -> None:
    opened, reduced = book.pictures.shown_by(row.number), book.pictures.reduced_by(row.number)
    seen = [None if isinstance(each, Flaw) else each for each in opened]
    flaws = [*row.flaws, *dict.fromkeys(each for each in opened if isinstance(each, Flaw))]
    sizes = [(each.width, each.height) if each else (0, 0) for each in seen]
    flaws += size_flaws(row.sample, sizes)
    flaws += [more] if more else []
    question = answer = b""
    if row.sample.messages:
        question = question_digest(row.sample, seen)
        answer = answer_digest(row.sample.messages[-1])
        flaws += repetitions(book, row.sample, question, answer, seen, reduced)
    if flaws:
        book.refuse(row.number, flaws)
    else:
        book.take(row.number, row.sample, question, answer, [each for each in (*seen, *reduced) if each])
