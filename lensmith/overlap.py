"""Whether a model was trained on rows of an exam: then comparing it there says nothing fair."""

from __future__ import annotations

from lensmith.artifact import Artifact
from lensmith.dataset import read_held_out, read_split
from lensmith.home import Home
from lensmith.row_file import RowFile

REASON = "whether the model in production was trained on its rows"


def learned_rows(home: Home, subject: Artifact, held_out: Artifact) -> int:
    """Rows of `held_out` of a group, or with a picture, that `subject` or its inputs were trained on."""
    groups: set[str] = set()
    pictures: set[str] = set()
    for dataset in home.lineage(subject):
        if dataset.kind == "dataset":
            rows = read_split(dataset, "train")
            groups.update(_texts(rows, "group"))
            pictures.update(text for (values,) in rows.image_columns("digest") for text in values.to_pylist())
    if not groups:
        return 0
    exam = read_held_out(home, held_out, REASON)
    return sum(
        sample.group in groups or any(image.digest in pictures for image in sample.images)
        for sample in exam.samples()
    )


def _texts(rows: RowFile, column: str) -> set[str]:
    return {text for (values,) in rows.columns(column) for text in values.to_pylist()}
