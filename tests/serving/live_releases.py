"""Releases of adapters that share an engine, with the answers that their proofs passed with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lensmith.artifact import Artifact
from lensmith.attestation import attest
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.trace import TraceRow, TraceSettings, write_trace
from serving.profile import make_profile
from serving.release_file import Exam, Release
from tests.serving.exam import CPU, CPU_BUILD, profile_artifact

VERSION = CPU_BUILD.version


def make_trace(
    home: Home, profile: Artifact, held_out: Artifact, rows: Sequence[TraceRow], serving: str = "adapter"
) -> Artifact:
    """A trace of what vLLM is said to have answered under a profile."""
    inputs = {"profile": profile, "held_out": held_out}
    key = digest_json([profile.id, held_out.id, [row.model_dump() for row in rows]])
    with home.create("trace", key, inputs) as draft:
        write_trace(draft.path, rows)
        settings = TraceSettings(
            subject=profile.body["subject"],
            held_out=held_out.id,
            engine="vllm",
            engine_version=VERSION,
            dtype=profile.body["dtype"],
            max_new_tokens=profile.body["max_new_tokens"],
            rows=len(rows),
            serving=serving,
            template="t" * 64,
        )
        draft.body.update(settings.model_dump())
    return draft.artifact


def say_proven(home: Home, profile: Artifact, trace: Artifact, *, passed: bool = True) -> None:
    """A serve proof of this profile's adapter."""
    evidence = {"profile": profile.id, "served_trace": trace.id}
    findings = [] if passed else ["the answers differ"]
    statement: dict[str, Any] = {"engine_version": VERSION, "findings": findings}
    attest(home, "serve-proof", profile.body["subject"], passed, evidence, statement)


def make_live_release(
    home: Home,
    recipe: Recipe,
    name: str,
    run: Artifact,
    base: Artifact,
    held_out: Artifact,
    rows: Sequence[TraceRow],
    *,
    proven: bool = True,
) -> Artifact:
    """A release called `name` of `run`'s adapter, whose proof passed with the answers `rows`."""
    named = recipe.model_copy(update={"release": recipe.release.model_copy(update={"name": name})})
    profile = profile_artifact(home, make_profile(named, run, base, CPU, CPU_BUILD), run, base)
    if proven:
        say_proven(home, profile, make_trace(home, profile, held_out, rows))
    exam = Exam(
        report="r" * 64,
        held_out=held_out.id,
        rows=len(rows),
        groups=len(rows),
        confidence=0.95,
        scores={},
        baseline=None,
        baseline_scores={},
        differences={},
    )
    release = Release(
        name=name,
        subject=run.id,
        mode="merged" if profile.body["mode"] == "base" else profile.body["mode"],
        profile=profile.id,
        base=base.id,
        run=run.id,
        dataset="d" * 64,
        family=recipe.family,
        licence="apache-2.0",
        intended_use="Reading forms.",
        limitations="",
        exam=exam,
        proofs=[],
    )
    content = release.model_dump(mode="json")
    with home.create("release", digest_json(content), {"model": run, "profile": profile}) as draft:
        draft.body.update(content)
    return draft.artifact
