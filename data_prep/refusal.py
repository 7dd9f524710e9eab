"""Why a row is not taken: one flaw a reason, in words that the people who made the row understand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Code = Literal[
    "not_utf8",
    "not_json",
    "schema",
    "turns",
    "empty_message",
    "unlabelled",
    "no_image",
    "image_count",
    "too_many_images",
    "image_place",
    "empty_answer",
    "answer_not_json",
    "answer_schema",
    "markup",
    "control_characters",
    "personal_data",
    "labelling",
    "labels_disagree",
    "part_place",
    "tool_definition",
    "tool_call",
    "region",
    "image_size",
    "image_path",
    "image_missing",
    "image_unreadable",
    "image_unsafe",
    "image_download",
    "archive_member",
    "video_unwanted",
    "video_unreadable",
    "video_unsafe",
    "duplicate_id",
    "duplicate_row",
    "contradiction",
    "image_across_groups",
    "two_splits",
    "old_exam",
    "too_long",
    "forgotten",
]

# How reports head each reason.
TITLES: dict[Code, str] = {
    "not_utf8": "The line is not UTF-8 text",
    "not_json": "The line is not JSON",
    "schema": "A field is missing, unknown or of the wrong type",
    "turns": "The conversation does not end with the answer",
    "empty_message": "A message says nothing",
    "unlabelled": "Nobody has labelled the row",
    "no_image": "The row shows no image",
    "image_count": "The text has room for another number of images than the row names",
    "too_many_images": "The row shows more images than are served",
    "image_place": "An image stands where only text may",
    "empty_answer": "The answer is empty",
    "answer_not_json": "The answer is not a JSON object",
    "answer_schema": "The answer does not fit its schema",
    "markup": "A text holds the model's own markup",
    "control_characters": "A text holds characters that change how it is shown",
    "personal_data": "The row holds personal data",
    "labelling": "Who labelled the row, or when, is not usable",
    "labels_disagree": "Labellers disagree about the answer",
    "part_place": "A thought or tool call stands where it cannot be written",
    "tool_definition": "A tool is not defined as it must be",
    "tool_call": "A tool is called that is not defined, or with other arguments",
    "region": "A box, point or span lies outside its image or is empty",
    "image_size": "The image is not the one that was drawn on",
    "image_path": "An image path leaves the data folder",
    "image_missing": "The image file is not there",
    "image_unreadable": "The image cannot be used",
    "image_unsafe": "Opening the image takes too much time or memory, or crashes",
    "image_download": "The image cannot be downloaded",
    "video_unwanted": "The row shows a video, and the recipe takes none",
    "video_unreadable": "The video cannot be used",
    "video_unsafe": "Opening the video takes too much time or memory, or crashes",
    "archive_member": "A file in the archive cannot be taken",
    "duplicate_id": "The row id is taken",
    "duplicate_row": "The row repeats an earlier one",
    "contradiction": "The same image and question have another answer",
    "image_across_groups": "The image belongs to another group",
    "two_splits": "The row ties rows of two splits together",
    "old_exam": "The row repeats a picture or a long answer of an earlier exam",
    "too_long": "The row has more tokens than is taught or served",
    "forgotten": "The row is to be forgotten",
}
CODES: tuple[Code, ...] = get_args(Code)

_SHOWN = 80


@dataclass(frozen=True)
class Flaw:
    """One thing wrong with a row: its reason code, what it is in plain words, and how to mend it."""

    code: Code
    what: str
    mend: str

    @property
    def reason(self) -> str:
        """What it is, headed as in reports."""
        return f"{TITLES[self.code]}: {self.what}"


@dataclass(frozen=True)
class Refusal:
    """A row that was not taken, with all its flaws.

    `place` is where a person finds it; `row` its id, "" where none could be read; `source` counts the
    sources from 0; `images` are the paths that the row names, empty where it could not be read.
    """

    place: str
    row: str
    flaws: tuple[Flaw, ...]
    source: int = 0
    images: tuple[str, ...] = ()


def quoted(text: str) -> str:
    """`text` in quotes, control characters escaped, cut to 80 characters: safe in any report or terminal."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def escaped(text: str) -> str:
    """A line with everything that does not print escaped: names of files may hold commands to a terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
