"""The intake: what was handed over for a dataset, what became of it, and the report that says so.

A dataset is its rows. The same rows from a JSONL file and from a labelling tool's export are the same
dataset, under the same id; where they came from, what was refused on the way and why differ, and are an
artifact of their own, made from the dataset and its exam.
"""

from __future__ import annotations

from lensmith.artifact import Artifact
from lensmith.home import Home


def find_intake(home: Home, dataset: Artifact) -> Artifact | None:
    """The newest intake of a dataset; None where it was removed."""
    made = [each for each in home.all("intake") if each.manifest.inputs["dataset"] == dataset.id]
    return made[-1] if made else None
