"""The proof that no split shares a group, an exact image or a row id with another.

Recomputed from the Parquet files as they were written: every image is decoded and digested once more, so
a fault in the splitting, the duplicate check or the writing shows here, whatever they reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from data_prep.refusal import quoted
from data_prep.split import SplitName
from lensmith.dataset import Row, read_rows
from lensmith.errors import IntegrityError, Problem
from lensmith.images import ImageLimits, decode_image, pixel_digest

_SHOWN = 5
WHAT = ("groups", "images", "ids")


@dataclass
class _Seen:
    groups: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def sets(self) -> dict[str, set[str]]:
        return {"groups": self.groups, "images": self.images, "ids": self.ids}


def prove_no_leaks(files: Mapping[SplitName, Path], limits: ImageLimits) -> dict[str, dict[str, int]]:
    """Count what each two of the splits' Parquet files share: all counts are zero, or this raises.

    Returns {"train and validation": {"groups": 0, "images": 0, "ids": 0}, ...}.
    Raises IntegrityError with every overlap, and with every row whose image is not the one it states.
    """
    problems: list[Problem] = []
    seen: dict[SplitName, _Seen] = {}
    for split, path in files.items():
        seen[split] = _Seen()
        for row in read_rows(path):
            problems += _take(row, split, seen[split], limits)
    report: dict[str, dict[str, int]] = {}
    for left, right in combinations(files, 2):
        shared = {what: seen[left].sets()[what] & seen[right].sets()[what] for what in WHAT}
        report[f"{left} and {right}"] = {what: len(shared[what]) for what in WHAT}
        problems += [
            Problem(
                f"{len(values)} shared {what}, the first {', '.join(map(quoted, sorted(values)[:_SHOWN]))}",
                f"{left} and {right}",
            )
            for what, values in shared.items()
            if values
        ]
    if problems:
        raise IntegrityError("the splits are not apart: no dataset was written", problems)
    return report


def _take(row: Row, split: SplitName, seen: _Seen, limits: ImageLimits) -> list[Problem]:
    digests = [pixel_digest(decode_image(data, limits)) for data in row.images]
    seen.groups.add(row.sample.group)
    seen.ids.add(row.sample.id)
    seen.images.update(digests)
    if digests != [image.digest for image in row.sample.images]:
        return [Problem("shows another image than it states", f"{split} row {quoted(row.sample.id)}")]
    return []
