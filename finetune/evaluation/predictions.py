"""`predictions.jsonl` of a report: every answer beside its label, a row a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.evaluation.exam import ExamRow
from finetune.evaluation.metrics import Judged, Verdict, is_right
from lensmith.artifact import Artifact
from lensmith.errors import InputError

PREDICTIONS_FILE = "predictions.jsonl"


@dataclass(frozen=True)
class Prediction:
    """What a report's subject answered to a row, and whether that was right."""

    answer: str
    right: bool


def write_predictions(path: Path, rows: Mapping[str, ExamRow], judged: Sequence[Sequence[Judged]]) -> None:
    """Write a line for each row: label, answer, verdict of every field, the baseline's too, image files."""
    with path.open("w", encoding="utf-8") as stream:
        for contestants in zip(*judged, strict=True):
            row = rows[contestants[0].row]
            line = {
                "row": row.id,
                "group": row.group,
                "images": list(row.images),
                "label": row.label,
                **_prediction(contestants[0]),
                "baseline": _prediction(contestants[1]) if len(contestants) == 2 else None,
            }
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _prediction(judged: Judged) -> dict[str, Any]:
    return {
        "answer": judged.answer,
        "exact": judged.exact,
        "json": judged.valid,
        "edits": judged.edits,
        "fields": {field.path: field.verdict for field in judged.fields},
    }


def read_predictions(report: Artifact) -> dict[str, Prediction]:
    """What the subject answered, by row id. Raises InputError where the artifact is no report."""
    if report.kind != "report":
        raise InputError(f"{report.short} is not a report")
    with (report.path / PREDICTIONS_FILE).open(encoding="utf-8") as lines:
        return {line["row"]: _read(line) for line in map(json.loads, lines)}


def _read(line: Mapping[str, Any]) -> Prediction:
    verdicts: Iterable[Verdict] = line["fields"].values()
    return Prediction(line["answer"], is_right(tuple(verdicts), line["json"], line["exact"]))
