"""The release: what a channel points at. Model and profile by id, report, proofs, card, lineage."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterable
from pathlib import Path

from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.base import checkpoint_path, is_legal
from lensmith.errors import GateRefused, IntegrityError, Problem
from lensmith.files import digest_file, write_atomically, write_json
from lensmith.home import Home
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe
from lensmith.report import PAGE_FILE, REPORT_FILE, Report, read_report
from serving.card import model_card
from serving.merged_in import read_others
from serving.pickles import find_pickles
from serving.release_file import CARD_FILE, LINEAGE_FILE, RELEASE_FILE, Exam, Proof, Release


def make_release(
    recipe: Recipe,
    home: Home,
    *,
    model: Artifact,
    profile: Artifact,
    report: Artifact,
    dataset: Artifact,
    held_out: Artifact,
    intake: Artifact,
    merge_proof: Attestation | None,
    serve_proof: Attestation,
) -> Artifact:
    """Bundle what is to be promoted; its report's baseline profile becomes the input `baseline_profile`.

    model: a merged model, or the run whose adapter is served beside its base: then merge_proof is None.
    Files: release.json, README.md (the card), lineage.json, report/, profile/ and the base's licence,
    notice and use policy (`lensmith.base.LEGAL`). Raises GateRefused where a proof failed, IntegrityError
    where the parts do not belong together, a licence is gone or a pickle is among them.
    """
    judged = read_report(report)
    proofs = [serve_proof] if merge_proof is None else [merge_proof, serve_proof]
    _check_proofs(proofs)
    _check_parts(home, model, profile, judged, dataset, held_out, intake, merge_proof, serve_proof)
    inputs = {"model": model, "profile": profile, "report": report}
    inputs |= {"dataset": dataset, "held_out": held_out, "intake": intake}
    if judged.comparison is not None:
        baseline_trace = home.by_id(judged.comparison.trace)
        inputs["baseline_profile"] = home.by_id(baseline_trace.manifest.inputs["profile"])
    asked = {
        "release": recipe.release.model_dump(mode="json"),
        "licence": recipe.licence,
        "base": recipe.base.path.name,
        "proofs": [_stated(proof).model_dump(mode="json") for proof in proofs],
    }
    ids = {role: artifact.id for role, artifact in inputs.items()}
    key = stage_key("release", "serving.bundle", ("pyyaml",), asked, ids)
    if found := home.find("release", key):
        return found

    run = _run(home, model)
    base = home.by_id(run.manifest.inputs["base"])
    release = Release(
        name=recipe.release.name,
        subject=model.id,
        mode="adapter" if model.kind == "run" else "merged",
        profile=profile.id,
        base=base.id,
        run=run.id,
        dataset=dataset.id,
        family=recipe.family,
        licence=recipe.licence,
        intended_use=recipe.release.intended_use,
        limitations=recipe.release.limitations,
        exam=_exam(report, judged),
        proofs=[_stated(proof) for proof in proofs],
    )
    with home.create("release", key, inputs) as draft:
        content = release.model_dump(mode="json")
        card = model_card(
            release,
            base_name=recipe.base.path.name,
            base=base,
            run=run,
            model=model,
            others=read_others(home, model),
            dataset=dataset,
            intake=intake,
            profile=profile,
        )
        write_json(draft.path / RELEASE_FILE, content)
        write_atomically(draft.path / CARD_FILE, card.encode())
        write_json(draft.path / LINEAGE_FILE, _lineage(home, inputs.values()))
        _copy(report.path, draft.path / "report", [REPORT_FILE, PAGE_FILE])
        _copy(profile.path, draft.path / "profile", [entry.path for entry in profile.manifest.files])
        _copy_legal(model, base, draft.path)
        problems = find_pickles(model.path) + find_pickles(draft.path)
        if problems:
            raise IntegrityError("a release holds no file that runs code when it is opened", problems)
        draft.body.update(content)
        draft.record.update(made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    return draft.artifact


def _run(home: Home, model: Artifact) -> Artifact:
    return model if model.kind == "run" else home.by_id(model.manifest.inputs["run"])


def _check_proofs(proofs: list[Attestation]) -> None:
    problems = [
        Problem(str(finding), proof.predicate)
        for proof in proofs
        if not proof.passed
        for finding in proof.statement["findings"]
    ]
    if not all(proof.passed for proof in proofs):
        raise GateRefused("no release is made of a model whose proofs failed", problems)


def _check_parts(
    home: Home,
    model: Artifact,
    profile: Artifact,
    report: Report,
    dataset: Artifact,
    held_out: Artifact,
    intake: Artifact,
    merge_proof: Attestation | None,
    serve_proof: Attestation,
) -> None:
    """Raise IntegrityError with everything that is about something else than the rest."""
    trained_on = _run(home, model).manifest.inputs["dataset"]
    judged_as = home.by_id(report.trace).manifest.inputs.get("profile", "")
    pairs = [
        ("the profile serves", profile.manifest.inputs["subject"], model.id),
        ("the report judges", report.subject, model.id),
        ("the report judges what was answered under profile", judged_as, profile.id),
        ("the report is on held-out set", report.held_out, held_out.id),
        ("the dataset's held-out set is", dataset.body["held_out"], held_out.id),
        ("the model was trained on", trained_on, dataset.id),
        ("the intake is of", intake.manifest.inputs["dataset"], dataset.id),
        ("the serve proof is about", serve_proof.subject, model.id),
        ("the serve proof is about profile", serve_proof.evidence["profile"], profile.id),
    ]
    if merge_proof is not None:
        pairs.append(("the merge proof is about", merge_proof.subject, model.id))
    problems = [
        Problem(f"{found[:12] or 'nothing'}, {wanted[:12]} was given", what)
        for what, found, wanted in pairs
        if found != wanted
    ]
    if (merge_proof is None) != (model.kind == "run"):
        problems.append(
            Problem("an adapter served beside its base has none, a merged model needs one", "the merge proof")
        )
    if problems:
        raise IntegrityError("these parts do not make one release", problems)


def _stated(proof: Attestation) -> Proof:
    """What the release says of a proof: all but when it was made and how its key was drawn."""
    facts = {name: value for name, value in proof.statement.items() if name not in ("key", "findings")}
    return Proof.model_validate(
        {
            "predicate": proof.predicate,
            "passed": proof.passed,
            "evidence": proof.evidence,
            "facts": facts,
        }
    )


def _exam(report: Artifact, judged: Report) -> Exam:
    comparison = judged.comparison
    return Exam(
        report=report.id,
        held_out=judged.held_out,
        rows=judged.rows,
        groups=judged.groups,
        confidence=judged.confidence,
        scores=judged.scores,
        baseline=comparison.subject if comparison else None,
        baseline_scores=comparison.scores if comparison else {},
        differences=comparison.differences if comparison else {},
    )


def _lineage(home: Home, inputs: Iterable[Artifact]) -> list[dict[str, object]]:
    found = {each.id: each for artifact in inputs for each in home.lineage(artifact)}
    return [
        {"kind": each.kind, "id": each.id, "inputs": each.manifest.inputs}
        for each in sorted(found.values(), key=lambda each: (each.kind, each.id))
    ]


def _copy_legal(model: Artifact, base: Artifact, target: Path) -> None:
    """The base's licence files: a merged model holds them, an adapter leaves them where the base lies.

    Raises IntegrityError where one is not there as it was pinned.
    """
    if model.kind == "model":
        names = [entry.path for entry in model.manifest.files if is_legal(entry.path)]
        _copy(model.path, target, names)
        return
    root = checkpoint_path(base)
    problems: list[Problem] = []
    for entry in base.body["files"]:
        name, place = entry["path"], root / entry["path"]
        if "/" in name or not is_legal(name):
            continue
        if place.is_file() and digest_file(place) == entry["sha256"]:
            _copy(root, target, [name])
        else:
            problems.append(Problem("is gone or was changed after it was pinned", str(place), "restore it"))
    if problems:
        raise IntegrityError(f"{base.short}'s licence cannot be handed on with its adapter", problems)


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
