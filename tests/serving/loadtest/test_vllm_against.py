"""`lensmith loadtest` as an operator runs it: merged against adapter, in engines that it starts itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lensmith.artifact import Artifact
from lensmith.dataset import held_out_reads
from lensmith.trace import read_trace
from serving.gates import Demands, judge
from serving.load_rule import LoadRule
from serving.loadtest.result import Side, read_load_test
from tests.e2e.command import Command, run
from tests.serving.exam import Exam
from tests.serving.live_releases import make_live_release

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
ROWS = 20


@pytest.fixture(scope="module")
def merged(exam: Exam) -> Artifact:
    return release(exam, exam.model, "merged")


@pytest.fixture(scope="module")
def adapter(exam: Exam) -> Artifact:
    return release(exam, exam.run, "adapter")


def release(exam: Exam, subject: Artifact, mode: str) -> Artifact:
    """A release of the exam's adapter, merged or not, whose proof passed."""
    serve = exam.recipe.serve.model_copy(update={"mode": mode, "tower_connector_lora": mode == "adapter"})
    recipe = exam.recipe.model_copy(update={"serve": serve})
    rows = list(read_trace(exam.reference))
    return make_live_release(exam.home, recipe, "forms", subject, exam.base, exam.held_out, rows)


@pytest.fixture(scope="module")
def asked(exam: Exam, merged: Artifact, adapter: Artifact) -> Command:
    """The command, to its end."""
    words = ["loadtest", merged.short, "--against", adapter.short, "--concurrency", "1,4"]
    command = run([*words, "--rows", str(ROWS), "--home", str(exam.home.root)])
    assert command.process.returncode == 0, command.err
    return command


@pytest.fixture(scope="module")
def test_of(exam: Exam, asked: Command) -> Artifact:
    """What the command left."""
    (made,) = exam.home.all("loadtest")
    return made


def assert_measured(side: Side, subject: Artifact, mode: str) -> None:
    assert (side.subject, side.mode) == (subject.id, mode)
    assert [level.load.concurrency for level in side.levels] == [1, 4]
    for level in side.levels:
        assert (level.requests, level.failures) == (ROWS, 0)
        assert level.first_token_ms is not None
        assert level.between_tokens_ms is not None
        assert level.latency_ms is not None
        assert 0 < level.first_token_ms.p50 < level.latency_ms.p50
        assert level.output_tokens_per_s == pytest.approx(level.output_tokens / level.seconds, rel=1e-3)
        # Every row was asked at the other level too, and the caches are on.
        assert level.cached_images == 0
        assert level.cached_tokens < 0.5


def test_both_are_measured_at_every_level(
    exam: Exam, test_of: Artifact, merged: Artifact, adapter: Artifact
) -> None:
    result = read_load_test(test_of)
    assert result.against is not None
    assert_measured(result.side, exam.model, "merged")
    assert_measured(result.against, exam.run, "adapter")
    requests = [json.loads(line) for line in (test_of.path / "requests.jsonl").read_text().splitlines()]
    assert len(requests) == 4 * ROWS
    # Under load the engine may send several tokens at once.
    assert all(len(each["gaps"]) < max(each["output_tokens"], 1) for each in requests)
    reasons = [each.reason for each in held_out_reads(exam.home, exam.held_out)]
    assert reasons[-2:] == [f"load test of {each.id[:12]}" for each in (merged, adapter)]


def test_the_operator_is_told_and_can_look(asked: Command, test_of: Artifact, merged: Artifact) -> None:
    assert asked.survivors() == []
    told = "".join(asked.out)
    for words in ("merged ", "adapter ", "throughput of merged over adapter: 1 in flight: ", test_of.short):
        assert words in told
    page = Path(told.splitlines()[-1].split(maxsplit=1)[1])
    assert page == test_of.path / "page.html"
    assert merged.id in page.read_text()
    assert f"{merged.short} (merged) ..." in asked.err


def test_a_gate_takes_it_and_it_verifies(exam: Exam, test_of: Artifact, merged: Artifact) -> None:
    rule = {"concurrency": 4, "latency_p95_ms": 600_000}
    demands = Demands(proofs=[], load=LoadRule.model_validate(rule))
    assert judge(exam.home, merged, demands, None).passed
    assert run(["verify", test_of.short, "--home", str(exam.home.root)]).process.returncode == 0
