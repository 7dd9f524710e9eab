"""What a policy may demand under load: each demand has a figure here that it must catch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from serving.gates import Demands, Finding, judge, read_policy
from serving.load_rule import LoadRule
from serving.loadtest.result import Load
from tests.release_artifacts import World
from tests.serving.loadtest.results import artifact, measured, result


def judged(world: World, **rule: Any) -> Finding:
    """The finding about release "one" by that rule."""
    demands = Demands(proofs=[], load=LoadRule.model_validate(rule))
    verdict = judge(world.home, world.release("one"), demands, None)
    (finding,) = verdict.findings
    assert verdict.passed == (finding.outcome == "pass")
    return finding


def put_under_load(world: World, *levels: Any, **more: Any) -> str:
    """Put release "one" under load; the artifact's short name."""
    return artifact(world.home, result(list(levels), **more), world.profile(world.model("one"))).short


@pytest.mark.parametrize(
    ("demand", "within", "beyond"),
    [
        ("first_token_p95_ms", 30, 29),
        ("between_tokens_p95_ms", 4, 3),
        ("latency_p95_ms", 120, 119),
        ("requests_per_s", 4, 5),
        ("output_tokens_per_s", 160, 161),
    ],
)
def test_each_figure_has_its_limit(world: World, demand: str, within: float, beyond: float) -> None:
    name = put_under_load(world, measured(1), measured(4))
    good = judged(world, concurrency=4, **{demand: within})
    assert (good.demand, good.outcome) == ("load", "pass")
    assert demand in good.text
    assert name in good.text
    assert "2 CPU cores" in good.text
    assert judged(world, concurrency=4, **{demand: beyond}).outcome == "fail"


def test_every_figure_counts(world: World) -> None:
    """One that is met makes up for none that is not."""
    put_under_load(world, measured(4))
    rule = {"first_token_p95_ms": 29, "output_tokens_per_s": 1, "latency_p95_ms": 1000}
    assert judged(world, concurrency=4, **rule).outcome == "fail"


def test_failures_count_although_the_rest_was_quick(world: World) -> None:
    put_under_load(world, measured(4, failures=1))
    finding = judged(world, concurrency=4, first_token_p95_ms=100)
    assert finding.outcome == "fail"
    assert "1 failed, 0 may" in finding.text
    assert judged(world, concurrency=4, first_token_p95_ms=100, failures=1).outcome == "pass"


def test_no_answer_is_no_quick_answer(world: World) -> None:
    nothing = {"first_token_ms": None, "failures": 40}
    put_under_load(world, measured(4, **nothing))
    assert judged(world, concurrency=4, first_token_p95_ms=100, failures=40).outcome == "fail"


def test_without_a_load_test_nothing_is_known(world: World) -> None:
    finding = judged(world, concurrency=4, first_token_p95_ms=100)
    assert finding.outcome == "undecidable"
    assert finding.mend == "lensmith loadtest RELEASE --concurrency 4"
    assert judged(world, rate=2.5, first_token_p95_ms=100).mend == "lensmith loadtest RELEASE --rates 2.5"


def test_another_load_decides_nothing(world: World) -> None:
    put_under_load(world, measured(1), measured(2), measured(4, load=Load(rate=4.0)))
    finding = judged(world, concurrency=4, first_token_p95_ms=100)
    assert finding.outcome == "undecidable"
    assert "1 in flight, 2 in flight, 4 a second" in finding.text
    assert judged(world, rate=4, first_token_p95_ms=100).outcome == "pass"


def test_few_requests_decide_nothing(world: World) -> None:
    put_under_load(world, measured(4, requests=19))
    finding = judged(world, concurrency=4, first_token_p95_ms=100)
    assert finding.outcome == "undecidable"
    assert "19 requests with 4 in flight decide nothing, 20 are demanded" in finding.text
    assert "--rows 20" in finding.mend
    put_under_load(world, measured(4), at="2026-11-23T06:00:00+00:00")
    assert judged(world, concurrency=4, first_token_p95_ms=100, requests=40).outcome == "pass"
    assert judged(world, concurrency=4, first_token_p95_ms=100, requests=41).outcome == "undecidable"


def test_another_profile_does_not_count(world: World) -> None:
    artifact(world.home, result([measured(4)]), world.profile(world.base))
    assert judged(world, concurrency=4, first_token_p95_ms=100).outcome == "undecidable"


def test_the_newest_counts(world: World) -> None:
    """Measured again until it looked better does not help: nor does an old one that looked worse hurt."""
    slow = {"output_tokens_per_s": 1.0}
    put_under_load(world, measured(4, **slow), at="2026-11-23T06:00:00+00:00")
    put_under_load(world, measured(4), at="2026-11-23T05:00:00+00:00")
    assert judged(world, concurrency=4, output_tokens_per_s=100).outcome == "fail"
    put_under_load(world, measured(4), at="2026-11-23T07:00:00+00:00")
    assert judged(world, concurrency=4, output_tokens_per_s=100).outcome == "pass"


def test_a_body_that_is_no_load_test_is_an_error(world: World) -> None:
    profile = world.profile(world.model("one"))
    world.artifact("loadtest", "edited", {"profile": profile}, {}, measured_at="2026-11-23T05:00:00+00:00")
    with pytest.raises(IntegrityError, match="no load test of schema 1"):
        judged(world, concurrency=4, first_token_p95_ms=100)


def test_the_verdict_names_the_load_test(world: World) -> None:
    test = artifact(world.home, result([measured(4)]), world.profile(world.model("one")))
    rule = LoadRule(concurrency=4, first_token_p95_ms=100)
    verdict = judge(world.home, world.release("one"), Demands(proofs=[], load=rule), None)
    assert verdict.evidence["loadtest"] == test.id


GOOD = """\
version: 1
staging: {proofs: [serve-proof, merge-proof]}
production:
  proofs: [merge-proof, serve-proof]
  gain: {metric: field_f1, above: 0.0, confidence: 0.95, groups: 20}
  load: {concurrency: 4, first_token_p95_ms: 500, failures: 0}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("concurrency: 4, ", "", ":6 production.load: needs concurrency or rate, one of the two"),
        ("concurrency: 4, ", "concurrency: 4, rate: 2.0, ", "needs concurrency or rate, one of the two"),
        ("first_token_p95_ms: 500, ", "", ":6 production.load: demands nothing"),
        ("first_token_p95_ms", "first_token_p96_ms", "did you mean first_token_p95_ms?"),
        ("first_token_p95_ms: 500", "first_token_p95_ms: 0", "production.load.first_token_p95_ms"),
        ("failures: 0", "failures: -1", "production.load.failures"),
        ("failures: 0", "requests: 19", "production.load.requests"),
        ("concurrency: 4", "concurrency: 0", "production.load.concurrency"),
    ],
)
def test_a_bad_demand_says_where(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(GOOD)
    assert read_policy(path).production.load == LoadRule(concurrency=4, first_token_p95_ms=500)
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_policy(path)
    assert told in str(caught.value)


def test_all_that_is_wrong_with_a_demand_is_said(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(GOOD.replace("{concurrency: 4, first_token_p95_ms: 500, failures: 0}", "{failures: 0}"))
    with pytest.raises(InputError) as caught:
        read_policy(path)
    assert [each.what.partition(":")[0] for each in caught.value.problems] == [
        "needs concurrency or rate, one of the two",
        "demands nothing",
    ]


def test_a_policy_without_the_demand_keeps_its_digest(tmp_path: Path) -> None:
    """Logged promotions name policies by digest: those from before there was such a demand stay the same."""
    path = tmp_path / "gates.yaml"
    path.write_text(GOOD.replace("  load:", "  # load:"))
    without = read_policy(path)
    path.write_text(GOOD)
    assert without.digest == "97f23942b1eeaff6c9d520d44893d30160cd76b2d862903decc46a092af7170c"
    assert read_policy(path).digest != without.digest


def test_home_lists_it(home: Home) -> None:
    world = World(home)
    test = artifact(home, result([measured(1)]), world.profile(world.base))
    assert [each.id for each in home.all("loadtest")] == [test.id]
