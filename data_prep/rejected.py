"""Rejected answers of preference rows: read as strictly as answers are, but for the form an answer must have.

That it is no JSON, or not what the schema asks for, may be what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from data_prep.personal.screen import Screened
from data_prep.refusal import Code, Flaw
from lensmith.sample import Image, Sample, Video

_FORM: frozenset[Code] = frozenset({"answer_not_json", "answer_schema"})
_MEND = "correct it, or leave it out"


def with_rejected(sample: Sample, seen: Screened, other: Screened) -> Screened:
    """`seen`, what was seen of the row, and what its rejected answer adds to it.

    other: what was seen of the same row with the rejected answer in the answer's place; its parts, personal
    data replaced where the recipe says so, become the row's.
    """
    answer = replace(seen.sample.messages[-1], rejected=other.sample.messages[-1].parts)
    flaws = [*_flaws(sample), *(each for each in other.flaws if each.code not in _FORM)]
    return Screened(
        replace(seen.sample, messages=(*seen.sample.prompt, answer)),
        (*seen.flaws, *(replace(each, what=_told(each.what)) for each in flaws if each not in seen.flaws)),
        (
            *seen.flags,
            *(replace(each, what=_told(each.what)) for each in other.flags if each not in seen.flags),
        ),
    )


def _told(what: str) -> str:
    return f"with its rejected answer: {what}"


def _flaws(sample: Sample) -> Iterator[Flaw]:
    if any(isinstance(part, Image | Video) for part in sample.rejected):
        yield Flaw("image_place", "it shows an image or a video", _MEND)
    if sample.rejected == sample.messages[-1].parts:
        yield Flaw("schema", "it is the answer itself", _MEND)
    if sample.messages[-1].role != "assistant":
        yield Flaw("turns", "there is no answer to prefer", "add the answer as an assistant message")
