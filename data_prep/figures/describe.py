"""The figures of a preparation that reports show as charts and that drift is told from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from data_prep.figures.histogram import Histogram
from data_prep.figures.label_distribution import LabelDistribution
from data_prep.figures.origin_counts import OriginCounts
from data_prep.workbook import Workbook
from lensmith.sample import Region
from lensmith.tokens import Grid


def describe(book: Workbook, grid: Grid | None) -> dict[str, Any]:
    """Parts of the dataset's body: `labels`, `origins` and `histograms`.

    Labels and origins are those of training and validation: texts of the exam are in no report. Histograms
    count the images of all splits: `image_edge` is the longer edge in pixels, `image_tokens` the image tokens
    of a row, None without a base.
    """
    labels, origins = LabelDistribution(), OriginCounts()
    for split in ("train", "validation"):
        for row in book.readable(split=split):
            answer = row.sample.messages[-1]
            labels.add(answer.text, [part for part in answer.parts if isinstance(part, Region)])
            origins.add(row.sample.origin)
    edges = book.db.execute("SELECT MAX(width, height) FROM rows JOIN sizes USING (n) WHERE taken")
    return {
        "labels": labels.summary(),
        "origins": origins.summary(),
        "histograms": {
            "image_edge": Histogram(edge for (edge,) in edges).summary(),
            "image_tokens": Histogram(_tokens(book, grid)).summary() if grid else None,
        },
    }


def _tokens(book: Workbook, grid: Grid) -> Iterator[int]:
    sizes: Iterable[tuple[int, int, int]] = book.db.execute(
        "SELECT n, width, height FROM rows JOIN sizes USING (n) WHERE taken ORDER BY n"
    )
    known: dict[tuple[int, int], int] = {}
    for _, images in groupby(sizes, key=lambda each: each[0]):
        total = 0
        for _, width, height in images:
            if (width, height) not in known:
                known[width, height] = grid.tokens(width, height)
            total += known[width, height]
        yield total
