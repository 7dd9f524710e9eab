"""`release.json`: what a release is, for programs; its content is the release artifact's body too."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.artifact import Artifact
from lensmith.errors import InputError, IntegrityError
from lensmith.report import Difference, MetricName, Score

RELEASE_FILE = "release.json"
CARD_FILE = "README.md"
LINEAGE_FILE = "lineage.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Proof(_Part):
    """A proof as it stood when the release was made; promotion reads the attestations themselves."""

    predicate: Literal["merge-proof", "serve-proof"]
    passed: bool
    evidence: dict[str, str]
    facts: dict[str, Any]


class Exam(_Part):
    """The report's figures. baseline: id of what it was compared with; None where with nothing."""

    report: str
    held_out: str
    rows: int
    groups: int
    confidence: float
    scores: dict[MetricName, Score]
    baseline: str | None
    baseline_scores: dict[MetricName, Score]
    differences: dict[MetricName, Difference]


class Release(_Part):
    """`release.json`. Weights are not copied: `subject` is the id of the model (mode merged) or of the run
    whose adapter is applied to `base` (mode adapter). Every other id is of an artifact, too."""

    schema_version: Literal[1] = 1
    name: str
    subject: str
    mode: Literal["merged", "adapter"]
    profile: str
    base: str
    run: str
    dataset: str
    family: str
    licence: str
    intended_use: str
    limitations: str
    exam: Exam
    proofs: list[Proof]


def read_release(artifact: Artifact) -> Release:
    """What a release artifact says. Raises InputError where it is no release, IntegrityError where its body
    is not of schema 1."""
    if artifact.kind != "release":
        raise InputError(f"{artifact.short} is not a release")
    try:
        return Release.model_validate(artifact.body)
    except ValidationError as error:
        raise IntegrityError(f"the body of {artifact.short} is not a release of schema 1: {error}") from error
