"""The report: one HTML page with pictures, for the people who made the labels. Needs no network.

Held-out rows appear in it as figures only: the exam stays sealed.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.flag import FLAG_TITLES
from data_prep.refusal import TITLES
from data_prep.report.charts import Bar, bars, columns
from data_prep.report.drift import Drift, find_shifts
from data_prep.report.findings import Before, Findings
from data_prep.report.shown import copy_pair, flagged_row, refused_row, taken_rows
from data_prep.report.thumbnail import Gallery
from data_prep.sources.detect import TITLES as FORMAT_TITLES
from data_prep.split import SPLITS
from data_prep.statistics import measures
from data_prep.templates import render
from lensmith.artifact import Artifact
from lensmith.dataset import Split, split_file
from lensmith.files import write_atomically
from lensmith.row_file import RowFile

REPORT = "report.html"
REFUSED_SHOWN = 100
FLAGGED_SHOWN = 60
COPIES_SHOWN = 24
VALUES_SHOWN = 8
_SAMPLES: dict[Split, int] = {"train": 12, "validation": 6}


def write_report(
    folder: Path,
    dataset: Artifact,
    intake: dict[str, Any],
    findings: Findings,
    gallery: Gallery,
    before: Before | None = None,
) -> None:
    """Write `report.html` into `folder`: what `intake`, the body of that artifact, tells of `dataset`.

    At most 100 refused and 60 flagged rows and 24 pairs of copies are shown, with their pictures from
    `gallery`. With `before`, the version before this one, the page begins with what changed.
    """
    body = dataset.body | intake
    rows = {
        "refused": [refused_row(each, gallery) for each in islice(findings.refusals, REFUSED_SHOWN)],
        "flagged": [flagged_row(each, gallery) for each in islice(findings.flagged, FLAGGED_SHOWN)],
        "copies": [copy_pair(each, gallery) for each in islice(findings.copies, COPIES_SHOWN)],
    }
    facts = {
        "body": body,
        "titles": TITLES,
        "flag_titles": FLAG_TITLES,
        "format_titles": FORMAT_TITLES,
        "formats": findings.formats or ("",) * len(intake["sources"]),
        "splits": SPLITS,
        "measures": measures(body),
        "samples": {
            split: taken_rows(dataset.path / split_file(split), count, gallery)
            for split, count in _SAMPLES.items()
        },
        **rows,
        "fields": [_field(field, body["labels"]["rows"]) for field in body["labels"]["fields"]],
        "regions": _regions(body["labels"]["regions"]),
        "stated": _stated(body["origins"]),
        "edges": columns(body["histograms"]["image_edge"]),
        "tokens": body["histograms"]["image_tokens"] and columns(body["histograms"]["image_tokens"]),
        "drift": _drift(dataset.path, body, before) if before else None,
        "total": sum(body["rows"].values()),
    }
    write_atomically(folder / REPORT, render("report.html.j2", facts).encode("utf-8", "backslashreplace"))


def _field(field: dict[str, Any], rows: int) -> dict[str, Any]:
    charts = {"bars": bars(field["values"], VALUES_SHOWN), "columns": columns(field["lengths"])}
    return {**field, "missing": rows - field["rows"], **charts}


def _regions(regions: dict[str, Any] | None) -> dict[str, Any] | None:
    if regions is None:
        return None
    return {"bars": bars(regions["labels"], VALUES_SHOWN), "columns": columns(regions["per_row"])}


def _stated(origins: dict[str, Any]) -> list[tuple[str, dict[str, Any], list[Bar]]]:
    """What rows state of their origin: title, counts and bars; nothing where none states it."""
    found = [("Licence", "licence"), ("Consent", "consent"), ("Source", "source")]
    return [
        (title, origins[key], bars(origins[key], VALUES_SHOWN))
        for title, key in found
        if origins[key]["rows"]
    ]


def _drift(folder: Path, body: dict[str, Any], before: Before) -> Drift:
    new, old = _row_hashes(folder), _row_hashes(before.dataset.path)
    return Drift(
        before.dataset.short,
        {split: (before.dataset.body["rows"][split], body["rows"][split]) for split in SPLITS},
        len(np.setdiff1d(new, old, assume_unique=True)),
        len(np.setdiff1d(old, new, assume_unique=True)),
        find_shifts(body, before.body),
    )


def _row_hashes(folder: Path) -> npt.NDArray[np.uint64]:
    """8 bytes a row id of training and validation: a million rows are 8 MB."""
    splits: tuple[Split, ...] = ("train", "validation")
    names = (
        name
        for split in splits
        for (batch,) in RowFile(folder / split_file(split)).columns("id")
        for name in batch.to_pylist()
    )
    hashes = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(hashes), np.uint64)
