"""Whether a model was trained on rows of an exam: then comparing it there says nothing fair."""

from __future__ import annotations

from collections.abc import Sequence

from lensmith.artifact import Artifact
from lensmith.dataset import read_held_out, read_split
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.row_file import RowFile

REASON = "whether the model in production was trained on its rows"
MERGED = "whether what is merged was trained on its rows"


def check_unlearned(home: Home, adapters: Sequence[Artifact], held_out: Artifact) -> None:
    """Refuse (InputError) adapters to merge that were trained on rows of `held_out`: the exam of what they
    become would be known to it. Of one from outside nothing is known."""
    problems: list[Problem] = []
    for each in adapters:
        if learned := learned_rows(home, each, held_out, MERGED):
            what = f"was trained on {learned:,} of the {held_out.body['rows']:,} rows"
            mend = "keep data.split as it was, or set data.previous, and train it again"
            problems.append(Problem(what, each.short, mend))
    if problems:
        raise InputError("what merge.adapters names has learned rows of this recipe's exam", problems)


def learned_rows(home: Home, subject: Artifact, held_out: Artifact, reason: str = REASON) -> int:
    """Rows of `held_out` of a group, or with a picture, that `subject` or its inputs were trained on.

    reason: what the log of reads says.
    """
    groups: set[str] = set()
    pictures: set[str] = set()
    for dataset in home.lineage(subject):
        if dataset.kind == "dataset":
            rows = read_split(dataset, "train")
            groups.update(_texts(rows, "group"))
            pictures.update(text for (values,) in rows.image_columns("digest") for text in values.to_pylist())
    if not groups:
        return 0
    exam = read_held_out(home, held_out, reason)
    return sum(
        sample.group in groups or any(image.digest in pictures for image in sample.images)
        for sample in exam.samples()
    )


def _texts(rows: RowFile, column: str) -> set[str]:
    return {text for (values,) in rows.columns(column) for text in values.to_pylist()}
