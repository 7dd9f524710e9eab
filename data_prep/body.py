"""What the two artifacts say of themselves: the bodies of `dataset` and `held_out`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_prep.refusal import CODES, Code, Refusal
from data_prep.sources.canonical_jsonl import Source
from data_prep.split import RULE
from data_prep.statistics import TakenRow, counts, image_statistics, text_statistics, token_statistics
from lensmith.files import digest_json
from lensmith.recipe import Data, Recipe
from lensmith.tokens import ImageGrid


def by_reason(refusals: Sequence[Refusal]) -> list[tuple[Code, int]]:
    """(reason, rows with it), the commonest first; a row with two reasons counts for both."""
    rows: Counter[Code] = Counter()
    for refusal in refusals:
        rows.update({flaw.code for flaw in refusal.flaws})
    return sorted(rows.items(), key=lambda item: (-item[1], CODES.index(item[0])))


def source_facts(source: Source, taken: Sequence[TakenRow]) -> dict[str, Any]:
    """The file that was handed over and its digest; a digest over path and pixels of every image taken."""
    images = sorted({(image.path, image.digest) for row in taken for image in row.sample.images})
    return {
        "file": source.name,
        "sha256": source.sha256,
        "bytes": source.bytes,
        "rows": len(source.lines),
        "images": len(images),
        "images_sha256": digest_json(images),
    }


def held_out_body(sources: list[dict[str, Any]], taken: Sequence[TakenRow], data: Data) -> dict[str, Any]:
    """Only what makes this exam this exam: another validation share or family leaves its id as it is."""
    rows, groups = counts(taken)
    return {
        "sources": sources,
        "rows": rows["held_out"],
        "groups": groups["held_out"],
        "split": {"rule": RULE, "seed": data.split.seed, "held_out": data.split.held_out},
        "answer": data.answer,
    }


def dataset_body(
    sources: list[dict[str, Any]],
    taken: Sequence[TakenRow],
    refusals: Sequence[Refusal],
    leaks: dict[str, dict[str, int]],
    grid: ImageGrid | None,
    recipe: Recipe,
) -> dict[str, Any]:
    """All of the dataset's body but the id of its held-out set, which the caller adds once it is known."""
    rows, groups = counts(taken)
    return {
        "sources": sources,
        "rows": rows,
        "groups": groups,
        "refused": {"rows": len(refusals), "by_reason": dict(by_reason(refusals))},
        "split": {"rule": RULE, **recipe.data.split.model_dump(mode="json")},
        "leaks": leaks,
        "answer": recipe.data.answer,
        "family": recipe.family,
        "images": image_statistics(taken),
        "text": text_statistics(taken),
        "image_tokens": token_statistics(taken, grid) if grid else None,
    }
