"""What a dataset holds in figures: pixels, characters and image tokens, a split at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_prep.split import SPLITS, SplitName
from lensmith.sample import Sample
from lensmith.tokens import ImageGrid

_SIZES_SHOWN = 8


@dataclass(frozen=True)
class TakenRow:
    """A row that passed every check: its line, its split, and (width, height) of each image in pixels."""

    line: int
    split: SplitName
    sample: Sample
    sizes: tuple[tuple[int, int], ...]


def spread(values: Sequence[int]) -> dict[str, int]:
    """Least, median, 95th percentile (both by nearest rank), greatest and sum; all 0 for no values."""
    ordered = sorted(values)
    if not ordered:
        return {"min": 0, "median": 0, "p95": 0, "max": 0, "sum": 0}
    last = len(ordered) - 1
    return {
        "min": ordered[0],
        "median": ordered[last // 2],
        # ceil(0.95 n) - 1, in integers so that no rounding moves it.
        "p95": ordered[-(-95 * len(ordered) // 100) - 1],
        "max": ordered[-1],
        "sum": sum(ordered),
    }


def image_statistics(rows: Sequence[TakenRow]) -> dict[str, Any]:
    """Images of all rows: how many, their width, height and area in pixels, and the commonest sizes."""
    sizes = [size for row in rows for size in row.sizes]
    common = sorted(Counter(sizes).items(), key=lambda item: (-item[1], item[0]))
    return {
        "images": len(sizes),
        "width": spread([width for width, _ in sizes]),
        "height": spread([height for _, height in sizes]),
        "pixels": spread([width * height for width, height in sizes]),
        "commonest": [{"width": w, "height": h, "images": n} for (w, h), n in common[:_SIZES_SHOWN]],
    }


def text_statistics(rows: Sequence[TakenRow]) -> dict[str, Any]:
    """Characters of question (all that stands before the answer) and answer, over all rows."""
    return {
        "question": spread([sum(len(each.text) for each in row.sample.prompt) for row in rows]),
        "answer": spread([len(row.sample.answer) for row in rows]),
    }


def token_statistics(rows: Sequence[TakenRow], grid: ImageGrid) -> dict[str, Any]:
    """Image tokens a row in each split, as the base's own processor cuts images, and its grid."""
    return {
        "grid": asdict(grid),
        "per_row": {
            split: spread(
                [sum(grid.tokens(*size) for size in row.sizes) for row in rows if row.split == split]
            )
            for split in SPLITS
        },
    }


def counts(rows: Sequence[TakenRow]) -> tuple[dict[str, int], dict[str, int]]:
    """(rows, groups) in each split."""
    in_split = {split: [row for row in rows if row.split == split] for split in SPLITS}
    return (
        {split: len(taken) for split, taken in in_split.items()},
        {split: len({row.sample.group for row in taken}) for split, taken in in_split.items()},
    )


def measures(body: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """The spreads of a dataset's body with the names that people read, in the order they are shown."""
    shown = [
        ("image width, pixels", body["images"]["width"]),
        ("image height, pixels", body["images"]["height"]),
        ("question, characters", body["text"]["question"]),
        ("answer, characters", body["text"]["answer"]),
    ]
    if body["image_tokens"] is not None:
        per_row = body["image_tokens"]["per_row"]
        shown += [(f"image tokens a row, {split}", figures) for split, figures in per_row.items()]
    return shown
