"""What the report shows of single rows, looked up in the workbook when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from data_prep.refusal import Code, Refusal
from data_prep.report import Copy, CopyPair, Findings
from data_prep.sources.source import Source
from data_prep.workbook import Workbook

_REPEATS: frozenset[Code] = frozenset({"duplicate_row", "contradiction", "image_across_groups"})
# The page shows 24 pairs; near copies are those that nobody finds by other means.
_NEAR_FIRST = 12
_ANSWERS_FIRST = 6


def find_evidence(book: Workbook, sources: Sequence[Source]) -> Findings:
    """Refused and flagged rows, copies, and why each source was taken for its format. No page shows the exam:
    flagged rows of it are left out, and refused rows that show a picture of it come without that picture."""
    pairs = chain(islice(_near(book), _NEAR_FIRST), islice(_near_answers(book), _ANSWERS_FIRST), _exact(book))
    return Findings(
        (_without_exam(book, each) for each in book.refusals()),
        book.flagged(with_exam=False),
        pairs,
        tuple(each.why for each in sources),
    )


def exact_copies(book: Workbook) -> int:
    """Refused rows that show, pixel for pixel, what a row before them shows."""
    return sum(1 for _ in _exact(book))


def _without_exam(book: Workbook, refusal: Refusal) -> Refusal:
    seen = (path for path in refusal.images if not _is_sealed(book, refusal.source, path))
    return replace(refusal, images=tuple(seen))


def _is_sealed(book: Workbook, source: int, path: str) -> bool:
    identity = _identity(book, source, path)
    first = _first_with(book, identity) if identity else None
    return first is not None and first.split == "held_out"


def _identity(book: Workbook, source: int, path: str) -> bytes | None:
    (identity,) = book.db.execute(
        "SELECT identity FROM pictures WHERE source = ? AND path = ?", (source, path)
    ).fetchone()
    return identity


def _near(book: Workbook) -> Iterator[CopyPair]:
    for first, second in book.db.execute("SELECT first, second FROM near ORDER BY rowid"):
        left, right = _first_with(book, first), _first_with(book, second)
        if left and right:
            yield CopyPair("near", left, right)


def _near_answers(book: Workbook) -> Iterator[CopyPair]:
    for pair in book.db.execute("SELECT first, second FROM near_answers ORDER BY rowid"):
        left, right = (_answering(book, number) for number in pair)
        yield CopyPair("answer", left, right)


def _answering(book: Workbook, number: int) -> Copy:
    """A row, its answer and its first picture."""
    row, place, source, path, taken, split = book.db.execute(
        "SELECT rows.id, place, rows.source, path, taken, split FROM rows"
        " LEFT JOIN shown ON shown.n = rows.n AND at = 0 LEFT JOIN pictures USING (p) WHERE rows.n = ?",
        (number,),
    ).fetchone()
    return Copy(row, place, source, path or "", split if taken else None, book.answer(number))


def _exact(book: Workbook) -> Iterator[CopyPair]:
    """Each refused row that repeats another, beside the first row with the picture they share."""
    for refusal in book.refusals():
        if not _REPEATS & {flaw.code for flaw in refusal.flaws}:
            continue
        for path in refusal.images:
            identity = _identity(book, refusal.source, path)
            if identity is not None and (first := _first_with(book, identity)):
                yield CopyPair("exact", first, Copy(refusal.row, refusal.place, refusal.source, path, None))
                break


def _first_with(book: Workbook, identity: bytes) -> Copy | None:
    """The first row that was taken with a picture, and the picture."""
    found = book.db.execute(
        "SELECT rows.id, place, rows.source, path, taken, split FROM first_pictures AS known"
        " JOIN rows USING (n) JOIN shown USING (n) JOIN pictures USING (p)"
        " WHERE known.identity = ? AND pictures.identity = known.identity LIMIT 1",
        (identity,),
    ).fetchone()
    if found is None:
        return None
    row, place, source, path, taken, split = found
    return Copy(row, place, source, path, split if taken else None)
