"""Evaluate: a trace on the held-out set in, a report out.

Nothing here asks a model: what is judged is what a trace says was answered, and for a release that is the
engine that ships. Metrics are defined in `metrics`, intervals in `bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune.evaluation.exam import ExamRow, answers, check_asked, read_exam
from finetune.evaluation.metrics import Judged, field_scores, judge
from finetune.evaluation.page import TEMPLATES, write_page
from finetune.evaluation.predictions import PREDICTIONS_FILE, write_predictions
from finetune.evaluation.scoring import Scored, score
from lensmith.artifact import Artifact
from lensmith.dataset import asked_role
from lensmith.errors import InputError
from lensmith.files import write_json
from lensmith.home import Home
from lensmith.page import template_digests
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe
from lensmith.report import METRICS, REPORT_FILE, TEXT_METRICS, Comparison, Report
from lensmith.retirement import check_in_force
from lensmith.trace import TraceSettings

PACKAGES = ("numpy", "rapidfuzz", "jinja2", "pillow")


def evaluate(
    recipe: Recipe, home: Home, trace: Artifact, held_out: Artifact, baseline: Artifact | None
) -> Artifact:
    """The report on `trace`, compared with the trace `baseline` where one is given.

    held_out: what was asked, an exam, or a dataset for its validation rows.

    The artifact holds report.json (see `lensmith.report.Report`; the body says the same), predictions.jsonl
    (a row each: label, answer, verdict of every field, the baseline's too, image files), images/ and
    page.html. Raises IntegrityError where a trace does not answer exactly the rows of `held_out`, GateRefused
    where that exam was retired.
    """
    check_in_force(home, held_out)
    traces = [trace] if baseline is None else [trace, baseline]
    settings = [check_asked(each, held_out) for each in traces]
    inputs = {"trace": trace, asked_role(held_out): held_out} | ({"baseline": baseline} if baseline else {})
    asked = {
        "answer": recipe.data.answer,
        "evaluate": recipe.evaluate.model_dump(mode="json"),
        "family": recipe.family,
        "name": recipe.release.name,
        "templates": template_digests(TEMPLATES),
    }
    ids = {role: artifact.id for role, artifact in inputs.items()}
    key = stage_key("report", "finetune.evaluation.evaluate", PACKAGES, asked, ids)
    if found := home.find("report", key):
        return found
    with home.create("report", key, inputs) as draft:
        rows = {
            row.id: row
            for row in read_exam(home, held_out, recipe.rendering, f"evaluate {trace.short}", draft.path)
        }
        if not rows:
            raise InputError(f"{held_out.short} has no rows")
        judged = [_judge(recipe, each, rows) for each in traces]
        metrics = METRICS if recipe.data.answer == "json" else TEXT_METRICS
        report = _report(recipe, traces, settings, judged, score(judged, metrics, recipe.evaluate))
        write_json(draft.path / REPORT_FILE, report.model_dump(mode="json"))
        write_predictions(draft.path / PREDICTIONS_FILE, rows, judged)
        names = _contestant_names(home, settings)
        write_page(draft.path, report, recipe.release.name, names, asked_role(held_out), rows, judged)
        draft.body.update(report.model_dump(mode="json"))
    return draft.artifact


def _judge(recipe: Recipe, trace: Artifact, rows: dict[str, ExamRow]) -> list[Judged]:
    spoken = recipe.rendering.spoken
    return [
        judge(row.row, row.group, rows[row.row].label, spoken(row.answer_text), recipe.data.answer)
        for row in answers(trace, rows).values()
    ]


def _report(
    recipe: Recipe,
    traces: Sequence[Artifact],
    settings: Sequence[TraceSettings],
    judged: Sequence[list[Judged]],
    scored: Scored,
) -> Report:
    comparison = None
    if len(traces) == 2:
        comparison = Comparison(
            subject=settings[1].subject,
            trace=traces[1].id,
            engine=_engine(settings[1]),
            scores=scored.scores[1],
            fields=field_scores(judged[1]),
            differences=scored.differences,
        )
    return Report(
        subject=settings[0].subject,
        trace=traces[0].id,
        held_out=settings[0].held_out,
        engine=_engine(settings[0]),
        answer=recipe.data.answer,
        rows=len(judged[0]),
        groups=scored.groups,
        resamples=recipe.evaluate.resamples,
        seed=recipe.evaluate.seed,
        confidence=recipe.evaluate.confidence,
        scores=scored.scores[0],
        fields=field_scores(judged[0]),
        comparison=comparison,
    )


def _contestant_names(home: Home, settings: Sequence[TraceSettings]) -> list[str]:
    """What the page calls them: "base" is an untouched checkpoint; else tuned, and what is in production."""
    bases = [home.by_id(each.subject).kind == "base" for each in settings]
    return [
        "base" if is_base else name for is_base, name in zip(bases, ("tuned", "production"), strict=False)
    ]


def _engine(settings: TraceSettings) -> str:
    return f"{settings.engine} {settings.engine_version}, {settings.dtype}"
