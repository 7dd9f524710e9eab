"""An adapter beside its base behind a real vLLM, whole and in part; two engine starts.

Both engines run inside programs that are ended: one by SIGKILL, one by SIGTERM. No process may survive.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lensmith.artifact import Artifact
from lensmith.recipe import Recipe
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import derive_profile, make_profile, read_profile
from tests.family_results import Shows
from tests.serving.exam import (
    CPU,
    CPU_BUILD,
    Exam,
    Program,
    profile_artifact,
    start_program,
    wait_gone,
)

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def with_tower_option(recipe: Recipe) -> Recipe:
    """The recipe with vLLM's option that applies an adapter's vision and connector part."""
    return recipe.model_copy(update={"serve": recipe.serve.model_copy(update={"tower_connector_lora": True})})


@pytest.fixture(scope="module")
def whole(exam: Exam) -> Artifact:
    return derive_profile(with_tower_option(exam.recipe), exam.home, exam.run, exam.base, CPU)


@pytest.fixture(scope="module")
def holder(exam: Exam, whole: Artifact) -> Iterator[Program]:
    """An engine that applies the whole adapter, in a program that knows nothing of clean ends."""
    script = Path(__file__).with_name("hold_engine.py")
    program = start_program([str(script), str(whole.path), str(exam.home.root)], exam.recipe.release.name)
    yield program
    program.process.kill()
    program.process.wait()


@pytest.fixture(scope="module")
def partial(exam: Exam) -> Artifact:
    """A profile that no recipe gives: the adapter without the option that its towers need."""
    profile = make_profile(with_tower_option(exam.recipe), exam.run, exam.base, CPU, CPU_BUILD)
    assert profile.adapter is not None
    options = profile.adapter.model_copy(update={"tower_connector": False})
    return profile_artifact(exam.home, profile.model_copy(update={"adapter": options}), exam.run, exam.base)


@pytest.fixture(scope="module")
def server(exam: Exam, partial: Artifact) -> Iterator[Program]:
    argv = ["-m", "serving.serve", str(partial.path), "--home", str(exam.home.root), "--port", "0"]
    program = start_program(argv, exam.recipe.release.name)
    yield program
    program.process.kill()
    program.process.wait()


def test_an_adapter_served_whole_equals_the_reference(
    exam: Exam, whole: Artifact, holder: Program, shows: Shows
) -> None:
    for tower in exam.run.body["modules"]:
        shows("qwen3_vl", tower, "serve adapter")
    trace = served_trace(exam.recipe, exam.home, whole, exam.held_out, engine=holder.engine)
    proof = prove_serving(exam.home, trace, exam.reference, exam.base_trace)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.subject == exam.run.id
    assert proof.statement["serving"] == "adapter"
    assert read_profile(whole).mode == "adapter"


def test_sigkill_of_the_program_leaves_no_engine(holder: Program) -> None:
    family = holder.family()
    assert len(family) >= 3, "supervisor, server and engine process"
    holder.process.send_signal(signal.SIGKILL)
    holder.process.wait()
    assert wait_gone(family) == []


def test_an_adapter_served_in_part_fails_the_proof(exam: Exam, partial: Artifact, server: Program) -> None:
    trace = served_trace(exam.recipe, exam.home, partial, exam.held_out, engine=server.engine)
    proof = prove_serving(exam.home, trace, exam.reference, exam.base_trace)
    assert not proof.passed
    assert any("a part of the adapter left out" in finding for finding in proof.statement["findings"])
    # Neither the trained model nor the base: the language part alone was applied.
    assert proof.statement["rows_equal"] < proof.statement["rows"]
    assert proof.statement["rows_live"] > 0


def test_sigterm_ends_the_server_cleanly(server: Program) -> None:
    family = server.family()
    assert len(family) >= 3
    server.process.terminate()
    assert server.process.wait(60) == 0
    assert wait_gone(family, 1) == []
