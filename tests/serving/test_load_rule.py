"""What a policy may demand under load: each demand has a figure here that it must catch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lensmith.attestation import attest
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from serving.gates import Demands, Finding, judge, read_policy
from serving.load_rule import LoadRule, _fits
from serving.loadtest.result import Load, Machine, Spread
from serving.profile import read_profile
from serving.profile_file import Cuda
from serving.registry import Entry
from tests.release_artifacts import World
from tests.serving.loadtest.loadable import Loadable
from tests.serving.loadtest.results import artifact, measured, result


@pytest.fixture
def world(home: Home) -> Loadable:
    return Loadable(home)


def judged(world: World, production: Entry | None = None, **rule: Any) -> Finding:
    """The finding about release "one" by that rule."""
    demands = Demands(proofs=[], load=LoadRule.model_validate(rule))
    verdict = judge(world.home, world.release("one"), demands, production)
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": "0.31.0"}, "was measured in vllm 0.31.0 built for cpu, the release is proven in vllm "),
        ({"device": "cuda"}, "built for cuda, the release is proven in"),
    ],
)
def test_another_engine_decides_nothing(world: Loadable, change: dict[str, str], told: str) -> None:
    test = result([measured(4)])
    other = test.model_copy(update={"engine": test.engine.model_copy(update=change)})
    artifact(world.home, other, world.profile(world.model("one")))
    finding = judged(world, concurrency=4, first_token_p95_ms=100)
    assert finding.outcome == "undecidable"
    assert told in finding.text
    assert finding.mend == "lensmith loadtest RELEASE --concurrency 4"
    put_under_load(world, measured(4), at="2026-11-23T04:00:00+00:00")
    assert judged(world, concurrency=4, first_token_p95_ms=100).outcome == "pass", "an older one that fits"


def test_the_engine_is_the_one_of_the_last_serve_proof(world: Loadable) -> None:
    """Proven in a new engine, the release is served by that one: how quick the old one was says nothing."""
    model = world.model("one")
    put_under_load(world, measured(4))
    world.release("one")
    assert judged(world, concurrency=4, first_token_p95_ms=100).outcome == "pass"
    evidence = {"base": world.base.id, "profile": world.profile(model).id}
    statement = {"key": "n" * 64, "findings": [], "engine_version": "0.99.0"}
    attest(world.home, "serve-proof", model.id, True, evidence, statement)
    load = LoadRule(concurrency=4, first_token_p95_ms=100)
    (release,) = world.home.all("release")
    finding = judge(world.home, release, Demands(proofs=[], load=load), None).findings[0]
    assert finding.outcome == "undecidable"
    assert "proven in vllm 0.99.0" in finding.text


GPU = "NVIDIA H200"


@pytest.mark.parametrize(
    ("gpus", "cuda", "fits"),
    [
        ([GPU], Cuda(gpu=GPU, memory_utilization=0.9, tensor_parallel=1), True),
        ([GPU, GPU, "NVIDIA L4"], Cuda(gpu=GPU, memory_utilization=0.9, tensor_parallel=2), True),
        ([GPU], Cuda(gpu=GPU, memory_utilization=0.9, tensor_parallel=1, data_parallel=2), False),
        (["NVIDIA L4"], Cuda(gpu=GPU, memory_utilization=0.9, tensor_parallel=1), False),
        ([GPU, "NVIDIA L4"], Cuda(gpu=GPU, memory_utilization=0.9, tensor_parallel=2), False),
        ([], Cuda(gpu=GPU, memory_utilization=0.9, tensor_parallel=1), False),
        ([], None, True),
    ],
)
def test_other_gpus_are_other_hardware(
    world: Loadable, gpus: list[str], cuda: Cuda | None, fits: bool
) -> None:
    profile = read_profile(world.profile(world.base)).model_copy(update={"cuda": cuda})
    assert _fits(Machine(cores=2, memory=1, gpus=gpus), profile) == fits


def test_a_machine_with_fewer_cores_decides_nothing(world: Loadable) -> None:
    world.threads = 3
    put_under_load(world, measured(4))
    finding = judged(world, concurrency=4, first_token_p95_ms=100)
    assert finding.outcome == "undecidable"
    assert "was measured on 2 CPU cores, the profile is for 3 CPU cores" in finding.text


def test_figures_of_another_release_decide_nothing(world: Loadable) -> None:
    artifact(world.home, result([measured(4)]), world.profile(world.model("one")), of_it=False)
    finding = judged(world, concurrency=4, first_token_p95_ms=100)
    assert finding.outcome == "undecidable"
    assert "has the figures of another release, aaaaaaaaaaaa" in finding.text


BESIDE = {"first_token_p95": 1.2, "output_tokens_per_s": 0.9}


def in_production(world: Loadable, name: str = "two") -> Entry:
    model = world.model(name)
    return Entry("e" * 64, "bank-forms", model.id, world.profile(model).id)


def beside(world: Loadable, other: Entry, at: str = "2026-11-23T05:00:00+00:00", **theirs: Any) -> str:
    """Put release "one" under load in turns with another."""
    test = result([measured(4)], at)
    update = {"release": other.id, "profile": other.profile, "levels": [measured(4, **theirs)]}
    against = test.side.model_copy(update=update)
    profile = world.profile(world.model("one"))
    return artifact(world.home, test.model_copy(update={"against": against}), profile).short


@pytest.mark.parametrize(
    ("theirs", "outcome"),
    [
        ({}, "pass"),
        ({"first_token_ms": Spread(p50=1, p95=26, p99=99)}, "pass"),
        ({"first_token_ms": Spread(p50=1, p95=24, p99=99)}, "fail"),
        ({"output_tokens_per_s": 177.0}, "pass"),
        ({"output_tokens_per_s": 178.0}, "fail"),
        ({"requests": 19}, "undecidable"),
        ({"failures": 40, "first_token_ms": None}, "undecidable"),
    ],
)
def test_it_is_held_against_what_is_in_production(
    world: Loadable, theirs: dict[str, Any], outcome: str
) -> None:
    production = in_production(world)
    beside(world, production, **theirs)
    assert judged(world, production, concurrency=4, beside_production=BESIDE).outcome == outcome


def test_measured_against_another_release_it_decides_nothing(world: Loadable) -> None:
    production = in_production(world)
    put_under_load(world, measured(4))
    finding = judged(world, production, concurrency=4, beside_production=BESIDE)
    assert finding.outcome == "undecidable"
    assert "was measured against nothing, release eeeeeeeeeeee is in production" in finding.text
    assert finding.mend == "lensmith loadtest RELEASE --concurrency 4 --against bank-forms@production"
    beside(world, replace(in_production(world, "three"), id="d" * 64), at="2026-11-23T06:00:00+00:00")
    finding = judged(world, production, concurrency=4, beside_production=BESIDE)
    assert finding.outcome == "undecidable"
    assert "was measured against release dddddddddddd, release eeeeeeeeeeee is in" in finding.text
    beside(world, production, at="2026-11-23T07:00:00+00:00")
    assert judged(world, production, concurrency=4, beside_production=BESIDE).outcome == "pass"


def test_the_first_in_production_stands_beside_nothing(world: Loadable) -> None:
    put_under_load(world, measured(4))
    assert judged(world, concurrency=4, beside_production=BESIDE).outcome == "pass"
    itself = replace(in_production(world), profile=world.profile(world.model("one")).id)
    assert judged(world, itself, concurrency=4, beside_production=BESIDE).outcome == "pass"


def test_what_is_beside_does_not_make_up_for_a_limit(world: Loadable) -> None:
    production = in_production(world)
    beside(world, production)
    rule = {"concurrency": 4, "beside_production": BESIDE, "first_token_p95_ms": 29}
    assert judged(world, production, **rule).outcome == "fail"


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
        ("failures: 0", "beside_production: {}", "production.load.beside_production: demands nothing"),
        ("failures: 0", "beside_production: {latency_p96: 1}", "did you mean latency_p95?"),
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
    told = read_policy(path)
    assert told.digest != without.digest
    # Nor does one from before a release could be held against production's.
    assert told.digest == "c87b8e3acf02208fc29b8ecc04ecef61f755f0ac905b8d4240763200cb798e93"
    path.write_text(GOOD.replace("failures: 0", "beside_production: {latency_p95: 1.2}"))
    assert read_policy(path).digest != told.digest


def test_home_lists_it(home: Home) -> None:
    world = World(home)
    test = artifact(home, result([measured(1)]), world.profile(world.base))
    assert [each.id for each in home.all("loadtest")] == [test.id]
