"""The short table at the end of a run: what came in, what came out, what is proven, where to look."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.cli.output import table
from lensmith.cli.pipeline import Pipeline
from lensmith.report import LOWER_IS_BETTER, MetricName, Report, Score, read_report

TITLES: dict[MetricName, str] = {
    "field_f1": "field F1",
    "field_precision": "field precision",
    "field_recall": "field recall",
    "exact_match": "exact match",
    "character_error_rate": "character error rate",
    "json_validity": "valid JSON",
}


def summarise(pipeline: Pipeline, promoted: dict[str, Any] | None) -> dict[str, Any]:
    """The facts of a finished pipeline as one JSON object."""
    recipe = pipeline.recipe
    return {
        "dataset": _named(pipeline.dataset) | _rows(pipeline.dataset, pipeline.intake),
        "scores": read_report(pipeline.report).model_dump(mode="json"),
        "baseline": pipeline.baseline_name,
        "proofs": [_proof(proof) for proof in pipeline.proofs],
        "release": _named(pipeline.release) | {"name": recipe.release.name},
        "promoted": promoted,
        "pages": {
            "data": str(pipeline.intake.path / "report.html"),
            "evaluation": str(pipeline.report.path / "page.html"),
            "card": str(pipeline.release.path / "README.md"),
        },
        "home": str(pipeline.home.root),
    }


def summary_text(summary: dict[str, Any]) -> str:
    """The table for people."""
    dataset, release = summary["dataset"], summary["release"]
    rows = dataset["rows"]
    reasons = ", ".join(f"{count} {code.replace('_', ' ')}" for code, count in dataset["reasons"].items())
    report = Report.model_validate(summary["scores"])
    lines = [
        [
            "rows taken",
            f"{rows['train']:,} train, {rows['validation']:,} validation, {rows['held_out']:,} held-out",
        ],
        ["rows refused", f"{dataset['refused']:,} ({reasons})" if reasons else "0"],
        *[[proof["predicate"].replace("-", " "), _proof_text(proof)] for proof in summary["proofs"]],
        ["release", f"{release['name']}  {release['short']}"],
        ["data report", summary["pages"]["data"]],
        ["evaluation page", summary["pages"]["evaluation"]],
        ["model card", summary["pages"]["card"]],
    ]
    promoted = summary["promoted"]
    where = f"@{promoted['channel']}" if promoted else ""
    what = f"{release['name']}{where}" if promoted else release["short"]
    lines.append(["serve it", f"{_program()} serve {what} --home {summary['home']}"])
    return f"{_score_table(report, summary['baseline'])}\n\n{table(lines)}"


def _program() -> str:
    """How the command is typed here: by its place where no activated environment has it on the path."""
    return "lensmith" if shutil.which("lensmith") else str(Path(sys.executable).with_name("lensmith"))


def _score_table(report: Report, baseline: str) -> str:
    header = [f"{report.rows} held-out rows, {report.groups} groups", "tuned"]
    comparison = report.comparison
    if comparison:
        header += [baseline, "difference"]
    rows: list[list[str]] = []
    for name, title in TITLES.items():
        if name not in report.scores:
            continue
        better = " (lower is better)" if name in LOWER_IS_BETTER else ""
        row = [title + better, _with_interval(report.scores[name])]
        if comparison:
            difference = comparison.differences[name]
            interval = difference.interval
            bounds = f" [{interval.lower:+.3f}, {interval.upper:+.3f}]" if interval else " [undecidable]"
            row += [_with_interval(comparison.scores[name]), f"{difference.value:+.3f}{bounds}"]
        rows.append(row)
    percent = f"{report.confidence:.0%} intervals in brackets"
    return f"{table(rows, header)}\n{percent}"


def _with_interval(score: Score) -> str:
    if score.interval is None:
        return f"{score.value:.3f} [undecidable]"
    return f"{score.value:.3f} [{score.interval.lower:.3f}, {score.interval.upper:.3f}]"


def _rows(dataset: Artifact, intake: Artifact) -> dict[str, Any]:
    refused = intake.body["refused"]
    return {"rows": dataset.body["rows"], "refused": refused["rows"], "reasons": refused["by_reason"]}


def _named(artifact: Artifact) -> dict[str, str]:
    return {"id": artifact.id, "short": artifact.short, "path": str(artifact.path)}


def _proof(proof: Attestation) -> dict[str, Any]:
    return {"predicate": proof.predicate, "passed": proof.passed, "statement": proof.statement}


def _proof_text(proof: dict[str, Any]) -> str:
    verdict = "passed" if proof["passed"] else "FAILED"
    statement = proof["statement"]
    if proof["predicate"] == "serve-proof":
        facts = (
            f"{statement['rows_equal']} of {statement['rows']} rows equal token by token,"
            f" {statement['reference']} against {statement['engine']} {statement['engine_version']}"
        )
        if (live := statement.get("rows_live")) is not None:
            facts += f", {live} answers unlike the base's"
        if guided := statement.get("guided"):
            facts += f"; guided JSON: {guided['rows_equal']} of {guided['rows']}"
        if not proof["passed"]:
            facts += f"; {'; '.join(statement['findings'])}"
        return f"{verdict}: {facts}"
    if not proof["passed"]:
        return f"{verdict}: {'; '.join(statement['findings'])}"
    weights, logits = statement["weights"], statement["logits"]
    # Method full has no adapter.
    adapter = (
        f" {statement['adapter']['used_once']} adapter tensors used once," if "adapter" in statement else ""
    )
    if weights.get("form") == "sampled":
        return (
            f"{verdict}: {weights['bit_equal']} of {weights['matrices']} merged matrices looked at, all"
            f" bit-equal, {weights['untouched']} tensors as in the base,{adapter} logits {logits['because']}"
        )
    return (
        f"{verdict}: {weights['bit_equal']} of {weights['tensors']} tensors bit-equal,{adapter}"
        f" logits {logits['max_abs_difference']:.1e} apart"
    )
