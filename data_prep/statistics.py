"""What a dataset holds in figures: pixels, characters and image tokens, a split at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from data_prep.split import SPLITS, SplitName
from data_prep.videos.names import FIRST_FRAMES, FRAMES
from data_prep.workbook import Workbook
from lensmith.tokens import Grid

_SIZES_SHOWN = 8


def spread(values: Iterable[int]) -> dict[str, int]:
    """Least, median, 95th percentile (both by nearest rank), greatest and sum; all 0 for no values."""
    ordered = np.sort(np.fromiter(values, np.int64))
    if not len(ordered):
        return {"min": 0, "median": 0, "p95": 0, "max": 0, "sum": 0}
    last = len(ordered) - 1
    return {
        "min": int(ordered[0]),
        "median": int(ordered[last // 2]),
        # ceil(0.95 n) - 1, in integers so that no rounding moves it.
        "p95": int(ordered[-(-95 * len(ordered) // 100) - 1]),
        "max": int(ordered[-1]),
        "sum": int(ordered.sum()),
    }


def image_statistics(book: Workbook) -> dict[str, Any]:
    """Images of all taken rows, not frames of videos: how many, width, height and area in pixels, and the
    commonest sizes."""
    shown = "FROM rows JOIN sizes USING (n) WHERE taken"
    common = book.db.execute(
        f"SELECT width, height, COUNT(*) AS images {shown} GROUP BY width, height"
        f" ORDER BY images DESC, width, height LIMIT {_SIZES_SHOWN}"
    ).fetchall()

    def column(what: str) -> Iterable[int]:
        return (value for (value,) in book.db.execute(f"SELECT {what} {shown}"))

    width, height, pixels = (spread(column(what)) for what in ("width", "height", "width * height"))
    return {
        "images": book.db.execute(f"SELECT COUNT(*) {shown}").fetchone()[0],
        "width": width,
        "height": height,
        "pixels": pixels,
        "commonest": [{"width": w, "height": h, "images": n} for w, h, n in common],
    }


def video_statistics(book: Workbook) -> dict[str, int]:
    """Videos of all taken rows, and the frames that were taken of them."""

    def count(like: str) -> int:
        shown = "FROM rows JOIN shown USING (n) JOIN pictures USING (p)"
        query = f"SELECT COUNT(*) {shown} WHERE taken AND path LIKE ?"
        return book.db.execute(query, (like,)).fetchone()[0]

    return {"videos": count(FIRST_FRAMES), "frames": count(FRAMES)}


def text_statistics(book: Workbook) -> dict[str, Any]:
    """Characters of question (all that stands before the answer) and answer, over all taken rows."""

    def column(what: str) -> Iterable[int]:
        return (value for (value,) in book.db.execute(f"SELECT {what} FROM rows WHERE taken"))

    return {"question": spread(column("asked")), "answer": spread(column("answered"))}


def token_statistics(book: Workbook, grid: Grid) -> dict[str, Any]:
    """Image tokens a taken row in each split, as the base's own processor cuts images, and its grid."""
    sizes: dict[tuple[int, int], int] = {}

    def tokens(width: int, height: int) -> int:
        if (width, height) not in sizes:
            sizes[width, height] = grid.tokens(width, height)
        return sizes[width, height]

    def per_row(split: SplitName) -> Iterable[int]:
        cursor = book.db.execute(
            "SELECT n, width, height FROM rows JOIN sizes USING (n) WHERE taken AND split = ? ORDER BY n",
            (split,),
        )
        row, total = -1, 0
        for number, width, height in cursor:
            if number != row and row >= 0:
                yield total
                total = 0
            row = number
            total += tokens(width, height)
        if row >= 0:
            yield total

    return {"grid": asdict(grid), "per_row": {split: spread(per_row(split)) for split in SPLITS}}


def counts(book: Workbook) -> tuple[dict[str, int], dict[str, int]]:
    """(taken rows, groups) in each split."""
    found = book.db.execute(
        "SELECT split, COUNT(*), COUNT(DISTINCT grp) FROM rows WHERE taken GROUP BY split"
    ).fetchall()
    rows = {split: count for split, count, _ in found}
    groups = {split: count for split, _, count in found}
    return {split: rows.get(split, 0) for split in SPLITS}, {split: groups.get(split, 0) for split in SPLITS}


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
