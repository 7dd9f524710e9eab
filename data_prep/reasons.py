"""What each reason for refusing or flagging a row means and how to mend it, for people who label.

docs/reference/reasons.md is written from here and from the reasons' titles.
"""

from __future__ import annotations

from typing import NamedTuple

from data_prep.flag import FlagCode
from data_prep.refusal import Code


class Reason(NamedTuple):
    """What is wrong with such rows, and what to do, each a sentence or two."""

    means: str
    mend: str


REFUSED: dict[Code, Reason] = {
    "not_utf8": Reason(
        "The line has bytes that are no text in UTF-8.", "Export again with the encoding UTF-8."
    ),
    "not_json": Reason("The line cannot be read as JSON: it may be cut off.", "Export the row again."),
    "schema": Reason(
        "A field is missing, empty, of the wrong type, or one that nobody knows.",
        "Correct the field that the report names; it also says the likely name of an unknown one.",
    ),
    "turns": Reason(
        "The conversation does not end with an answer, or the sides do not take turns.",
        "Let question and answer take turns, the answer last; each tool call needs one result behind it.",
    ),
    "empty_message": Reason("A message has neither text nor image.", "Fill the message, or take it out."),
    "unlabelled": Reason("Nobody has labelled the row, or it was skipped.", "Label it, or leave it out."),
    "no_image": Reason(
        "The row shows no image, and `data.text_only` is not set.",
        "Name its image; rows that are meant to be text alone need `data.text_only: true`.",
    ),
    "image_count": Reason(
        "The text has more or fewer `<image>` than the row names images.",
        "Write `<image>` once for each image, where it belongs.",
    ),
    "too_many_images": Reason(
        "The row shows more images than one request may (`serve.max_images`).",
        "Divide the row, or ask for the recipe to be changed.",
    ),
    "image_place": Reason(
        "An image stands where only text may, such as in an answer.", "Put the image into the question."
    ),
    "empty_answer": Reason("The answer is empty.", "Type the answer, or leave the row out."),
    "answer_not_json": Reason(
        "The recipe asks for JSON objects; this answer is none, or gives a field twice.",
        'Write the answer as an object: `{"amount": "12.50"}`.',
    ),
    "answer_schema": Reason(
        "A field of the answer is not what the recipe's schema asks for.",
        "The report says the field, what stands there and what is expected.",
    ),
    "markup": Reason(
        "A text holds the model's own signs, such as `<|image_pad|>`, which it would take for commands.",
        "Take them out.",
    ),
    "control_characters": Reason(
        "A text holds characters that turn its direction around or cannot be shown.", "Type the text again."
    ),
    "personal_data": Reason(
        "The row holds an e-mail address, a telephone, card or account number, or the number of a person, and"
        " the recipe refuses these.",
        "Take it out, or use made-up values.",
    ),
    "labelling": Reason(
        "The recipe wants to know who labelled a row and when, and the row does not say.",
        "Export with labeller and date.",
    ),
    "labels_disagree": Reason(
        "Several people labelled one thing and gave different answers.",
        "Settle it: `disagreements.csv` has every answer beside the others.",
    ),
    "part_place": Reason(
        "A thought does not come first in its message, or a tool call not last.", "Change their order."
    ),
    "tool_definition": Reason(
        "A tool has no name, or parameters that are no JSON Schema.", "Correct the definition."
    ),
    "tool_call": Reason(
        "A call names a tool that the row does not define, or gives it arguments that it does not take.",
        "Correct the call or the definition.",
    ),
    "region": Reason(
        "A box, point or span leaves its image, is empty or turned over, or is of a kind that the model"
        " cannot write.",
        "Draw it again.",
    ),
    "image_size": Reason(
        "The image has another shape than the one that was drawn on, so boxes would lie elsewhere.",
        "Hand over the image that was labelled.",
    ),
    "image_path": Reason(
        "A path leads out of the folder, or is an address on the web.",
        "Put the image into the folder and give its path from there.",
    ),
    "image_missing": Reason("There is no such file.", "Add the file, or correct the path."),
    "image_unreadable": Reason(
        "The image is cut off, empty, too small, too large, an animation, or no image at all.",
        "Replace it with a whole PNG or JPEG.",
    ),
    "image_unsafe": Reason(
        "Opening the image takes too much time or memory, or crashes the program that opens it.",
        "Save the picture anew from a program that shows it.",
    ),
    "image_download": Reason(
        "The recipe does not allow the image's host, the address leads into a private network, or the server"
        " is too slow or sends something else.",
        "Download the image yourself and hand over the file.",
    ),
    "archive_member": Reason(
        "A file in a zip or tar leads out of it, is a link, encrypted, there twice, or unpacks to far more"
        " than it is.",
        "Pack the archive again, plain files only.",
    ),
    "video_unwanted": Reason(
        "The row shows a video, and the recipe has no `data.video` that says how videos are sampled.",
        "Leave the row out, or ask for the recipe to be changed.",
    ),
    "video_unreadable": Reason(
        "The video is not there, cut off, broken, of an unknown kind, too large, or has a single frame; or it"
        " lies in an archive or on the web.",
        "Save it as MP4 (H.264) beside the labels; hand over a single frame as an image.",
    ),
    "video_unsafe": Reason(
        "Opening the video takes too much time or memory, or crashes the program that opens it.",
        "Cut it into shorter clips, or save it anew from a program that shows it.",
    ),
    "duplicate_id": Reason("Another row has this id.", "Give each row an id of its own."),
    "duplicate_row": Reason(
        "Image, question and answer are those of an earlier row.", "Nothing: the first one is kept."
    ),
    "contradiction": Reason(
        "An earlier row shows the same image, asks the same and answers otherwise.",
        "Decide which answer is right and remove the other row.",
    ),
    "image_across_groups": Reason(
        "The very same picture stands in a row of another group, as it was handed over or once it is made"
        " smaller so that the row fits.",
        "Correct the group, or remove one of the two.",
    ),
    "two_splits": Reason(
        "By its group, or by a near copy of its picture or answer, the row belongs to rows of two splits.",
        "Correct the group, or leave the row out.",
    ),
    "old_exam": Reason(
        "The picture, or a long answer, is in an exam that is guarded: who learned it could not be examined"
        " with it.",
        "Leave the row out.",
    ),
    "too_long": Reason(
        "Its text, pictures and answer together are more than the model may read. No row is cut.",
        "Shorten the text, show fewer pictures, or ask whoever keeps the recipe for a lower"
        " `pixels.image_tokens.max` or a greater `train.max_length`.",
    ),
    "forgotten": Reason(
        "It was decided that such rows are not used again. They do not count as bad.",
        "Leave it out of what you hand over, and ask whoever keeps the data about your copy.",
    ),
}

FLAGGED: dict[FlagCode, Reason] = {
    "personal_data": Reason(
        "An e-mail address, a telephone, card or account number, or the number of a person.",
        "Remove it if the model need not know it; use made-up names as ids and groups.",
    ),
    "redacted": Reason(
        "Such data was replaced by a placeholder such as `[e-mail]`.",
        "Leave the row out if the model has to read just that.",
    ),
    "instructions": Reason(
        'A text speaks to the model ("ignore previous instructions"), imitates a chat, or holds markup of'
        " another model.",
        "Keep it only if the image shows these very words.",
    ),
    "repeats_question": Reason("The answer holds the whole question.", "Leave only the answer."),
    "outer_space": Reason("The answer, or a field of it, begins or ends with empty space.", "Remove it."),
    "hidden_characters": Reason(
        "A text holds characters that nobody sees, such as zero-width spaces.", "Type the text again."
    ),
    "mixed_scripts": Reason(
        "A word mixes Latin letters with Cyrillic or Greek ones that look alike.",
        "Type the word again with one keyboard.",
    ),
    "long_answer": Reason(
        "The answer is extremely long.", "Make sure that it is one answer, not a file pasted in."
    ),
    "typed_places": Reason(
        "The answer has coordinates typed into its text. Nobody knows their unit, so nobody checks that they"
        " lie in the image, and they are taught as they stand; each model counts in a unit of its own.",
        "Hand them over as boxes or points, out of Label Studio, COCO or Lensmith's own format.",
    ),
    "empty_fields": Reason(
        "The answer is an object without a field, or with nothing in any of them.",
        "Fill them, unless there is nothing to be read in the image.",
    ),
    "labels_differ": Reason(
        "Labellers gave different answers, and the recipe took one.",
        "Look at `disagreements.csv`, which has every label beside the others.",
    ),
    "group_spelling": Reason(
        "The name of its group and that of another differ only in capitals, spaces, the Unicode form of a"
        " letter or characters that nobody sees. They count as two groups, which may lie in two splits.",
        "Write one name where it is one group; otherwise nothing.",
    ),
    "reduced": Reason(
        "The row had more tokens than the recipe allows, and the recipe makes pictures smaller.",
        "Nothing, if what the answer needs can be read. Otherwise ask for a greater `train.max_length`.",
    ),
}
