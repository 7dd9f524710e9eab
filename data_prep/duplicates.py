"""Rows that show what an earlier row showed. Pictures are equal when their identities are.

Rows are compared with the rows taken before them, so rows that are added at the end never undo an
earlier decision. Within a group, several questions about one image are welcome; the same question is
refused as a repetition, or as a contradiction where its answer differs. Across groups a shared image is
always refused: the two groups may fall into different splits, and the exam would show a training image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from data_prep.refusal import Flaw, quoted
from data_prep.seen import Seen
from data_prep.workbook import Workbook
from lensmith.files import canonical_json
from lensmith.sample import Image, Message, Part, Sample, Video


def question_digest(sample: Sample, seen: Sequence[Seen | None]) -> bytes:
    """16 bytes of SHA-256 over the group and everything that is shown and said before the answer.

    `seen` is what is known of the sample's pictures; one that could not be opened counts by its path.
    """
    pictures = iter(seen)
    said = [[message.role, *(_said(part, pictures) for part in message.parts)] for message in sample.prompt]
    return _digest([sample.group, said, list(sample.tools)])


def answer_digest(answer: Message) -> bytes:
    """16 bytes of SHA-256 over the final message."""
    return _digest([_said(part, iter(())) for part in answer.parts])


def _said(part: Part, pictures: Iterator[Seen | None]) -> Any:
    if isinstance(part, Image):
        seen = next(pictures, None)
        return ["image", seen.identity.hex() if seen else part.path]
    if isinstance(part, Video):
        return ["video", part.seconds, [_said(frame, pictures) for frame in part.frames] or part.path]
    return [type(part).__name__, asdict(part)]


def _digest(value: object) -> bytes:
    return hashlib.sha256(canonical_json(value)).digest()[:16]


def repetitions(
    book: Workbook,
    sample: Sample,
    question: bytes,
    answer: bytes,
    seen: Sequence[Seen | None],
    reduced: Sequence[Seen | None],
) -> Iterator[Flaw]:
    """What a row repeats of the rows taken so far; `reduced` is what it shows of pictures made smaller."""
    asked = book.firsts.with_question(question)
    if asked is not None and asked[1] == answer:
        what = f"image, question and answer are those of {_named(book, asked[0])}"
        yield Flaw("duplicate_row", what, "remove it: the first is kept")
    elif asked is not None:
        what = f"answers otherwise than {_named(book, asked[0])} on the same image and question"
        yield Flaw("contradiction", what, "decide which answer is right and remove the other row")
    same_id = book.firsts.with_id(sample.id)
    if same_id is not None and (asked is None or asked[0] != same_id):
        what = f"its id is already that of {_named(book, same_id)}"
        yield Flaw("duplicate_id", what, "give it an id of its own")
    for image, each, small in zip(sample.images, seen, reduced, strict=True):
        as_it_is = each and _of_another_group(book, sample, each)
        # Unlike pictures, blank ones say, may be one when they are smaller: the exam would show that one.
        if found := as_it_is or (small and _of_another_group(book, sample, small)):
            made = f" at {small.width} x {small.height}" if small and not as_it_is else ""
            what = (
                f"{quoted(image.path)}{made} of group {quoted(sample.group)} is, pixel for pixel, the image"
                f" of {found}"
            )
            yield Flaw("image_across_groups", what, "correct the group, or remove one of the two rows")


def _of_another_group(book: Workbook, sample: Sample, seen: Seen) -> str:
    """The first row that shows the picture, and its group, where that is not the sample's; else ""."""
    first = book.firsts.with_picture(seen.identity)
    if first is None:
        return ""
    _, group, _ = book.place(first)
    return f"{_named(book, first)}, group {quoted(group)}" if group != sample.group else ""


def _named(book: Workbook, number: int) -> str:
    row, _, place = book.place(number)
    return f"row {quoted(row)} ({place})"
