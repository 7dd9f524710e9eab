"""What a person should look at in a row that is kept: one flag a reason, in the words of `refusal`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FlagCode = Literal[
    "personal_data",
    "redacted",
    "instructions",
    "repeats_question",
    "outer_space",
    "hidden_characters",
    "mixed_scripts",
    "long_answer",
    "typed_places",
    "empty_fields",
    "labels_differ",
    "group_spelling",
    "reduced",
]

# How reports head each reason.
FLAG_TITLES: dict[FlagCode, str] = {
    "personal_data": "The row holds personal data",
    "redacted": "Personal data was replaced",
    "instructions": "A text speaks to the model instead of describing the image",
    "repeats_question": "The answer repeats the question",
    "outer_space": "The answer, or a field of it, begins or ends with empty space",
    "hidden_characters": "A text holds characters that nobody sees",
    "mixed_scripts": "A word mixes letters of two alphabets that look alike",
    "long_answer": "The answer is extremely long",
    "typed_places": "The answer types places in the image as text",
    "empty_fields": "Every field of the answer is empty",
    "labels_differ": "Labellers gave different answers",
    "group_spelling": "The group's name is spelled almost like that of another group",
    "reduced": "Pictures were made smaller so that the row fits",
}
FLAG_CODES: tuple[FlagCode, ...] = get_args(FlagCode)


@dataclass(frozen=True)
class Flag:
    """One thing to look at: its reason code, what it is in plain words, and how to mend it where it is wrong.

    `what` never holds the personal data itself: flagged rows are passed around as a spreadsheet.
    """

    code: FlagCode
    what: str
    mend: str


@dataclass(frozen=True)
class Flagged:
    """A row that was taken, with all its flags; the fields are those of `Refusal`.

    sealed: the row is in the exam: where it stands may be told, what it says may not.
    """

    place: str
    row: str
    flags: tuple[Flag, ...]
    source: int = 0
    images: tuple[str, ...] = ()
    sealed: bool = False
