"""Comparing what an engine answered with the reference, row by row, by the definition of equality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from lensmith.trace import TraceRow

What = Literal["image", "image tokens", "prompt", "answer", "greedy decoding", "log-probability"]


@dataclass(frozen=True)
class Bounds:
    """What may differ between two correct implementations on the same weights.

    margin: an answer may part from the reference only at a token whose lead over the second best in the
    reference lies below this, in nats; 0 allows no difference. logprob: up to the first difference the
    log-probability of every answer token agrees within this, in nats. source: how they were measured.
    """

    margin: float
    logprob: float
    source: str


@dataclass(frozen=True)
class Difference:
    """One thing that differs in a row: what, where it first does, and what that usually comes from."""

    row: str
    what: What
    detail: str
    cause: str


@dataclass(frozen=True)
class Compared:
    """A row's outcome. allowed: it parts where the reference was undecided. noise: largest difference of a
    log-probability up to there, in nats."""

    row: str
    differences: tuple[Difference, ...]
    allowed: bool
    noise: float


def compare(
    served: TraceRow, reference: TraceRow, base: TraceRow | None, bounds: Bounds, of_images: str = ""
) -> Compared:
    """Compare one row; `base` is what the base answered, to tell an adapter that is not applied.

    of_images: what the engine is known to compute otherwise where a prompt has images ("" for nothing): the
    cause that is named for an answer about one.
    """
    found = [*_question(served, reference)]
    at = first_difference(served.answer_ids, reference.answer_ids)
    common = len(served.answer_ids) if at is None else at
    gaps = [
        abs(ours - theirs)
        for ours, theirs in zip(served.answer_logprobs[:common], reference.answer_logprobs, strict=False)
    ]
    noise = max(gaps, default=0.0)
    allowed = at is not None and _undecided(reference, at, bounds)
    if sampled := _sampled(served):
        found.append(sampled)
    elif at is not None and not allowed:
        found.append(_answer(served, reference, base, at, of_images))
    # Another prompt is another question: its log-probabilities say nothing more.
    if noise > bounds.logprob and not found:
        where = next(i for i, gap in enumerate(gaps) if gap > bounds.logprob)
        detail = f"{gaps[where]:.2g} nats apart at answer token {where}, {bounds.logprob:g} are allowed"
        cause = (
            _known(served, of_images) or "other weights or arithmetic: dtype, a part of the adapter left out"
        )
        found.append(Difference(served.row, "log-probability", detail, cause))
    return Compared(served.row, tuple(found), allowed, noise)


def _sampled(served: TraceRow) -> Difference | None:
    """The first token that was not the engine's own most probable one."""
    for at, margin in enumerate(served.margins):
        if margin < 0:
            detail = f"token {at} was {-margin:.3g} nats less probable than another"
            cause = "sampling or a penalty that no request asked for, such as generation_config.json's"
            return Difference(served.row, "greedy decoding", detail, cause)
    return None


def is_live(served: TraceRow, base: TraceRow, bounds: Bounds) -> bool:
    """Whether an answer is another than the base's: not where noise alone can have made the difference."""
    at = first_difference(served.answer_ids, base.answer_ids)
    return at is not None and not _undecided(base, at, bounds)


def _undecided(row: TraceRow, at: int, bounds: Bounds) -> bool:
    """Whether the lead at a token lies below what two correct implementations differ by."""
    return at < len(row.margins) and row.margins[at] < bounds.margin


def _question(served: TraceRow, reference: TraceRow) -> list[Difference]:
    """What differs in what was asked: images, their tokens, the prompt."""
    row = served.row
    found: list[Difference] = []
    if served.image_digests != reference.image_digests:
        detail = f"{len(served.image_digests)} images, {len(reference.image_digests)} in the reference"
        found.append(Difference(row, "image", detail, "another picture was asked"))
    same_count = served.image_tokens == reference.image_tokens
    if not same_count:
        detail = f"{served.image_tokens}, {reference.image_tokens} in the reference"
        found.append(Difference(row, "image tokens", detail, "the pixel budget of serving is not training's"))
    # An image's tokens are one id repeated: without repeats, prompts differ in their text only.
    ours = served.prompt_ids if same_count else [token for token, _ in groupby(served.prompt_ids)]
    theirs = reference.prompt_ids if same_count else [token for token, _ in groupby(reference.prompt_ids)]
    at = first_difference(ours, theirs)
    if at is not None:
        detail = f"first at token {at}: {_token(ours, at)}, {_token(theirs, at)} in the reference"
        found.append(Difference(row, "prompt", detail, "another chat template or tokenizer"))
    return found


def _known(served: TraceRow, of_images: str) -> str:
    return of_images if served.image_tokens else ""


def _answer(
    served: TraceRow, reference: TraceRow, base: TraceRow | None, at: int, of_images: str
) -> Difference:
    margin = f"{reference.margins[at]:.3g} nats" if at < len(reference.margins) else "none: it had ended"
    detail = (
        f"first at token {at}: {_token(served.answer_ids, at)}, {_token(reference.answer_ids, at)} in the"
        f" reference, whose lead there is {margin}"
    )
    if base is not None and served.answer_ids == base.answer_ids:
        cause = "the base's own answer: the adapter is not applied, or its keys were not matched"
    else:
        cause = (
            _known(served, of_images)
            or "other weights or arithmetic: a part of the adapter left out, another merge, dtype"
        )
    return Difference(served.row, "answer", detail, cause)


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The first place where two sequences of ids differ, their ends included; None where they are equal."""
    for at, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return at
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def _token(ids: Sequence[int], at: int) -> str:
    return str(ids[at]) if at < len(ids) else "the end"
