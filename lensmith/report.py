"""The report: what a trace scored on the held-out set, with intervals, and against a baseline.

`finetune/evaluation` writes it, the gates and the model card in `serving` read it.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.artifact import Artifact
from lensmith.errors import InputError, IntegrityError

MetricName = Literal[
    "exact_match",
    "field_precision",
    "field_recall",
    "field_f1",
    "character_error_rate",
    "json_validity",
]
Unit = Literal["rows", "fields", "characters"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
# Text answers have no fields and need not be JSON.
TEXT_METRICS: tuple[MetricName, ...] = ("exact_match", "character_error_rate")
# How pages and cards head each metric.
TITLES: dict[MetricName, str] = {
    "exact_match": "Exact match",
    "field_precision": "Field precision",
    "field_recall": "Field recall",
    "field_f1": "Field F1",
    "character_error_rate": "Character error rate",
    "json_validity": "JSON validity",
}
LOWER_IS_BETTER: frozenset[MetricName] = frozenset({"character_error_rate"})
REPORT_FILE = "report.json"
PAGE_FILE = "page.html"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Part):
    """A percentile interval of the bootstrap over groups, at the report's confidence."""

    lower: float
    upper: float


class Score(_Part):
    """One metric: its value, how many `unit`s it is a share of, and its interval.

    interval: None where it cannot be decided: fewer than two groups.
    """

    value: float
    n: int
    unit: Unit
    interval: Interval | None


class Difference(_Part):
    """The subject's value minus the baseline's, both on the same resamples of groups."""

    value: float
    interval: Interval | None


class FieldScore(_Part):
    """One field of the JSON answers. n: how often labels hold it."""

    precision: float
    recall: float
    f1: float
    n: int


class Comparison(_Part):
    """The baseline on the same held-out rows. subject: the id of what answered as the baseline."""

    subject: str
    trace: str
    engine: str
    scores: dict[MetricName, Score]
    fields: dict[str, FieldScore]
    differences: dict[MetricName, Difference]


class Report(_Part):
    """The body of a report artifact, and its `report.json`.

    subject: id of what answered (a model, base or run). trace, held_out: ids of the artifacts read, as in
    `TraceSettings`. engine: engine, version and dtype that answered. Numbers are rounded to six decimals.
    """

    schema_version: Literal[1] = 1
    subject: str
    trace: str
    held_out: str
    engine: str
    answer: Literal["json", "text"]
    rows: int
    groups: int
    resamples: int
    seed: int
    confidence: float
    scores: dict[MetricName, Score]
    fields: dict[str, FieldScore]
    comparison: Comparison | None


def read_report(artifact: Artifact) -> Report:
    """The report in an artifact's body. Raises InputError where it is no report, IntegrityError where
    its body is not of schema 1."""
    if artifact.kind != "report":
        raise InputError(f"{artifact.short} is not a report")
    try:
        return Report.model_validate(artifact.body)
    except ValidationError as error:
        raise IntegrityError(f"the body of {artifact.short} is not a report of schema 1: {error}") from error
