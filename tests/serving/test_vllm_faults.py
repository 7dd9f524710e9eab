"""Faults planted in what is served: the proof finds them and says where they come from. One engine start."""

from __future__ import annotations

import shutil

import pytest

from lensmith.artifact import Artifact
from lensmith.base import template_digest
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import make_profile
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


def test_another_pixel_budget_and_template_fail_the_proof(exam: Exam, faulty: Artifact) -> None:
    trace = served_trace(exam.recipe, exam.home, faulty, exam.held_out)
    proof = prove_serving(exam.home, trace, exam.reference, exam.base_trace)
    assert not proof.passed
    assert proof.statement["rows_equal"] == 0
    findings = "\n".join(proof.statement["findings"])
    assert "the pixel budget of serving is not training's" in findings
    assert "another chat template or tokenizer" in findings
    assert "the chat template's file is not the reference's" in findings
