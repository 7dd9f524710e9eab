"""Faults planted in what is served: the proof finds them and says where they come from. One engine start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from finetune.generate import reference_trace
from lensmith.artifact import Artifact
from lensmith.base import template_digest
from lensmith.trace import read_trace
from serving import command
from serving.engine import Engine, running_engine
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import make_profile, read_profile
from tests.artifacts import answering_here, make_film_held_out
from tests.serving.exam import CPU, CPU_BUILD, Exam, profile_artifact

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def faulty(exam: Exam) -> Artifact:
    """A profile with another pixel budget, for a model whose chat template has one word more."""
    with exam.home.create("model", "f" * 64, {"base": exam.base, "run": exam.run}) as draft:
        shutil.copytree(exam.model.path, draft.path, dirs_exist_ok=True)
        for name in ("manifest.json", "record.json"):
            (draft.path / name).unlink(missing_ok=True)
        template = draft.path / "chat_template.jinja"
        template.write_text("{{- 'Hello ' -}}" + template.read_text())
        draft.body.update(exam.model.body, template=template_digest(draft.path))
    model = draft.artifact
    profile = make_profile(exam.recipe, model, exam.base, CPU, CPU_BUILD)
    images = profile.images.model_copy(update={"max_pixels": profile.images.min_pixels * 2})
    return profile_artifact(exam.home, profile.model_copy(update={"images": images}), model, exam.base)


@pytest.fixture(scope="module")
def engine(exam: Exam, faulty: Artifact) -> Iterator[Engine]:
    """Its pixel budget is of videos as well: vLLM takes a `size` without a name before it for both."""
    profile = read_profile(faulty)
    size = {"shortest_edge": profile.images.min_pixels, "longest_edge": profile.images.max_pixels}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_processor", lambda profile: {"size": size})
        with running_engine(faulty, exam.home, proof=True) as engine:
            yield engine


def test_another_pixel_budget_and_template_fail_the_proof(
    exam: Exam, faulty: Artifact, engine: Engine
) -> None:
    trace = served_trace(exam.recipe, exam.home, faulty, exam.held_out, engine=engine)
    proof = prove_serving(exam.home, trace, exam.reference, exam.base_trace)
    assert not proof.passed
    assert proof.statement["rows_equal"] == 0
    findings = "\n".join(proof.statement["findings"])
    assert "the pixel budget of serving is not training's" in findings
    assert "another chat template or tokenizer" in findings
    assert "the chat template's file is not the reference's" in findings


def test_another_pixel_budget_of_videos_fails_the_proof(exam: Exam, faulty: Artifact, engine: Engine) -> None:
    held_out = make_film_held_out(exam.home)
    trace = served_trace(exam.recipe, exam.home, faulty, held_out, engine=engine)
    with answering_here():
        reference = reference_trace(exam.recipe, exam.home, exam.base, exam.run, held_out, 64)
    told = {row.row: row.image_tokens for row in read_trace(reference)}
    # One that shows no image: frames alone are smaller.
    (film,) = (row for row in read_trace(trace) if row.row == "even")
    assert 0 < film.image_tokens < told["even"]
    findings = "\n".join(prove_serving(exam.home, trace, reference).statement["findings"])
    assert "the pixel budget of serving is not training's" in findings
