"""Which characters of a label and an answer differ, and text from a model made safe to look at."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

# Longer texts are cut for display; the metrics and predictions.jsonl keep all of them.
LONGEST = 2000
_KEPT = "\n\t"


@dataclass(frozen=True)
class Span:
    """A stretch of text; `marked` where it differs from the other side."""

    text: str
    marked: bool


def marks(label: str, answer: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Label and answer in spans, marked along a shortest edit path from one to the other."""
    left, right = shortened(label), shortened(answer)
    label_spans: list[Span] = []
    answer_spans: list[Span] = []
    for step in Levenshtein.opcodes(left, right):
        for spans, text in (
            (label_spans, left[step.src_start : step.src_end]),
            (answer_spans, right[step.dest_start : step.dest_end]),
        ):
            if text:
                spans.append(Span(visible(text), step.tag != "equal"))
    return tuple(label_spans), tuple(answer_spans)


def shortened(text: str) -> str:
    """`text`, cut at `LONGEST` characters with a note of how many were left out."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} … {len(text) - LONGEST:,} more characters"


def visible(text: str) -> str:
    """`text` with control, format and unassigned characters written as \\u escapes.

    A model can answer with characters that turn the line around or cannot be seen.
    """
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each)[0] == "C" and each not in _KEPT else each
        for each in text
    )
