"""What the three artifacts say of themselves: the bodies of `dataset`, `held_out` and `intake`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from data_prep.evidence import exact_copies
from data_prep.figures.describe import describe
from data_prep.flag import FLAG_CODES, FlagCode, Flagged
from data_prep.refusal import CODES, Code, Refusal
from data_prep.sources.source import Source
from data_prep.split import rule_of
from data_prep.splitting import Alike
from data_prep.statistics import (
    counts,
    image_statistics,
    text_statistics,
    token_statistics,
    video_statistics,
)
from data_prep.workbook import Workbook
from lensmith.data_settings import Data
from lensmith.files import canonical_json
from lensmith.recipe import Recipe
from lensmith.tokens import Grid


def by_reason(refusals: Iterable[Refusal]) -> list[tuple[Code, int]]:
    """(reason, rows with it), the commonest first; a row with two reasons counts for both."""
    rows: Counter[Code] = Counter()
    for refusal in refusals:
        rows.update({flaw.code for flaw in refusal.flaws})
    return sorted(rows.items(), key=lambda item: (-item[1], CODES.index(item[0])))


def by_flag(flagged: Iterable[Flagged]) -> tuple[int, dict[FlagCode, int]]:
    """Rows that have flags, and (flag, rows with it), the commonest first."""
    total = 0
    rows: Counter[FlagCode] = Counter()
    for each in flagged:
        total += 1
        rows.update({flag.code for flag in each.flags})
    return total, dict(sorted(rows.items(), key=lambda item: (-item[1], FLAG_CODES.index(item[0]))))


def _source_facts(book: Workbook, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Each source and its digest; a digest over path and pixels of every image taken from it."""
    facts: list[dict[str, Any]] = []
    for at, source in enumerate(sources):
        state, images = hashlib.sha256(), 0
        for path, pixels in book.pictures.written(at):
            state.update(canonical_json([path, pixels]))
            images += 1
        shown = {"rows": book.rows_of(at), "images": images, "images_sha256": state.hexdigest()}
        facts.append({"file": source.name, "format": source.format, **source.facts(), **shown})
    return facts


def held_out_body(book: Workbook, data: Data) -> dict[str, Any]:
    """Only what makes this exam this exam: another validation share or family leaves its id as it is."""
    rows, groups = counts(book)
    return {
        "rows": rows["held_out"],
        "groups": groups["held_out"],
        "split": {
            "rule": rule_of(data.split),
            "seed": data.split.seed,
            "held_out": data.split.held_out,
            "stratify": data.split.stratify,
        },
        "answer": data.answer,
    }


def dataset_body(
    book: Workbook,
    leaks: dict[str, dict[str, int]],
    grid: Grid | None,
    recipe: Recipe,
) -> dict[str, Any]:
    """All of the dataset's body but the id of its held-out set, which the caller adds once it is known."""
    rows, groups = counts(book)
    return {
        "rows": rows,
        "groups": groups,
        "split": {
            "rule": rule_of(recipe.data.split),
            **recipe.data.split.model_dump(mode="json"),
            "similar": recipe.data.similar,
        },
        "leaks": leaks,
        "answer": recipe.data.answer,
        "family": recipe.family,
        "images": image_statistics(book),
        "videos": video_statistics(book) if recipe.data.video else None,
        "text": text_statistics(book),
        "image_tokens": token_statistics(book, grid) if grid else None,
        **describe(book, grid),
    }


def intake_body(
    book: Workbook, sources: Sequence[Source], data: Data, alike: Alike, agreement: list[dict[str, Any]]
) -> dict[str, Any]:
    """What was handed over and what became of it."""
    flagged_rows, flagged = by_flag(book.flagged())
    return {
        "sources": _source_facts(book, sources),
        "refused": {"rows": book.refused(), "by_reason": dict(by_reason(book.refusals()))},
        "flagged": {"rows": flagged_rows, "by_reason": flagged},
        "similar": {
            "exact": exact_copies(book),
            "pairs": alike.pictures,
            "answers": alike.answers,
            "kept": data.similar,
        },
        "left_out": book.left_out(),
        "agreement": agreement,
    }
