"""Which characters of a label and an answer differ."""

from __future__ import annotations

from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from lensmith.page import visible

# Longer texts are cut for display; the metrics and predictions.jsonl keep all of them.
LONGEST = 2000


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
