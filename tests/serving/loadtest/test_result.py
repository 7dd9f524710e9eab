"""Figures are what their requests say, and saturation is where more load gives no more."""

from __future__ import annotations

import pytest

from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from serving.loadtest.result import Load, level, read_load_test, saturation
from tests.release_artifacts import World
from tests.serving.loadtest.results import artifact, measured, request, result


def test_a_levels_figures_are_those_of_its_requests() -> None:
    asked = [request(first=float(at)) for at in range(1, 101)]
    found = level(Load(concurrency=4), asked, 50.0, (0.25, 3))
    assert (found.requests, found.failures, found.input_tokens, found.output_tokens) == (100, 0, 2000, 300)
    assert (found.requests_per_s, found.output_tokens_per_s) == (2.0, 6.0)
    assert found.first_token_ms is not None
    assert found.first_token_ms.model_dump() == {"p50": 50.5, "p95": 95.05, "p99": 99.01}
    assert found.between_tokens_ms is not None
    assert (found.between_tokens_ms.p50, found.between_tokens_ms.p99) == (3.0, 4.0)
    assert found.latency_ms is not None
    assert found.latency_ms.p50 == 56.5
    assert (found.cached_tokens, found.cached_images) == (0.25, 3)


def test_what_failed_is_counted_and_makes_no_figure_better() -> None:
    failed = request(first=0.0, gaps=(), latency=0.0, output_tokens=0, error="Bad Request")
    found = level(Load(concurrency=1), [request(), failed, failed], 1.0, (0.0, 0))
    assert (found.requests, found.failures, found.output_tokens) == (3, 2, 3)
    assert found.requests_per_s == 1.0
    assert found.first_token_ms is not None
    assert found.first_token_ms.p50 == 10.0
    nothing = level(Load(concurrency=1), [failed], 1.0, (0.0, 0))
    assert nothing.first_token_ms is nothing.between_tokens_ms is nothing.latency_ms is None


@pytest.mark.parametrize(
    ("throughputs", "place"),
    [
        ([10, 20, 40], None),
        ([10, 20, 21.9, 40], 2),
        ([10, 11.1], None),
        ([10, 9], 1),
        ([10], None),
        ([], None),
    ],
)
def test_saturation_is_the_first_level_that_gives_no_more(
    throughputs: list[float], place: int | None
) -> None:
    levels = [measured(1 << at, output_tokens_per_s=value) for at, value in enumerate(throughputs)]
    assert saturation(levels) == place


def test_a_load_test_is_read_back_and_nothing_else_is(home: Home) -> None:
    world = World(home)
    profile = world.profile(world.base)
    test = result([measured(1)])
    assert read_load_test(artifact(home, test, profile, of_it=False)) == test
    with pytest.raises(InputError, match="is not a load test"):
        read_load_test(profile)
    with pytest.raises(IntegrityError, match="no load test of schema 1"):
        read_load_test(world.artifact("loadtest", "other", {}, {}, measured_at="now"))
