"""A load test's result: the body of its artifact, and `loadtest.json`. Pages, gates and people read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.artifact import Artifact
from lensmith.errors import InputError, IntegrityError
from serving.build import EngineBuild

RESULT_FILE = "loadtest.json"
REQUESTS_FILE = "requests.jsonl"
# A level whose throughput is not this much above the best one before it shows that the engine is saturated.
RISE = 1.1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Load(_Part):
    """A level of load: so many requests always in flight, or so many a second at random (Poisson) times."""

    concurrency: int | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return f"{self.concurrency} in flight" if self.concurrency else f"{self.rate:g} a second"


class Request(_Part):
    """One answered or failed request; a line of `requests.jsonl`. Times in milliseconds from its sending.

    side: 0 the release, 1 what it is measured against. row: its place in the order asked. first: to the
    first token. gaps: between the pieces of the answer that came after, a piece being one token unless the
    engine sent several at once. latency: to the last token. error: "" where it was answered.
    """

    side: int
    round: int
    load: Load
    row: int
    input_tokens: int
    output_tokens: int
    first: float
    gaps: list[float]
    latency: float
    error: str


class Spread(_Part):
    """Percentiles in milliseconds, interpolated linearly."""

    p50: float
    p95: float
    p99: float


class Level(_Part):
    """What was measured at one load, over all rounds.

    seconds: from the first request sent to the last answer. Throughputs are over them; answered requests
    alone count. first_token, between_tokens, latency: None where nothing was answered, or no answer had
    a second token. cached_tokens: share of the prompts' tokens that the prefix cache had; cached_images: how
    many images' processing was saved: none unless the exam shows an image twice.
    """

    load: Load
    requests: int
    failures: int
    seconds: float
    input_tokens: int
    output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    first_token_ms: Spread | None
    between_tokens_ms: Spread | None
    latency_ms: Spread | None
    cached_tokens: float
    cached_images: int


class Side(_Part):
    """One release at every load. saturated: the place, in `levels`, of the load from which on more of it
    gave no more throughput; None where all gave more."""

    release: str
    profile: str
    subject: str
    mode: str
    levels: list[Level]
    saturated: int | None


class Machine(_Part):
    """cores: those the engine may use. memory: in bytes. gpus: names as the driver gives them."""

    cores: int
    memory: int
    gpus: list[str]


class LoadTest(_Part):
    """A load test. rows: held-out rows of each level and round, each asked once.

    benchmark: what sent the requests and took the times. against: measured in turns with `side`.
    """

    schema_version: Literal[1] = 1
    measured_at: str
    name: str
    held_out: str
    rows: int
    rounds: int
    max_new_tokens: int
    engine: EngineBuild
    benchmark: str
    machine: Machine
    side: Side
    against: Side | None


def level(load: Load, requests: Sequence[Request], seconds: float, cached: tuple[float, int]) -> Level:
    """The figures of all `requests` at one load, sent over `seconds` in all rounds together."""
    answered = [each for each in requests if not each.error]
    written = sum(each.output_tokens for each in answered)
    return Level(
        load=load,
        requests=len(requests),
        failures=len(requests) - len(answered),
        seconds=round(seconds, 3),
        input_tokens=sum(each.input_tokens for each in answered),
        output_tokens=written,
        requests_per_s=round(len(answered) / seconds, 3),
        output_tokens_per_s=round(written / seconds, 2),
        first_token_ms=_spread([each.first for each in answered]),
        between_tokens_ms=_spread([gap for each in answered for gap in each.gaps]),
        latency_ms=_spread([each.latency for each in answered]),
        cached_tokens=round(cached[0], 4),
        cached_images=cached[1],
    )


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, (50, 95, 99)).round(2).tolist()
    return Spread(p50=p50, p95=p95, p99=p99)


def saturation(levels: Sequence[Level]) -> int | None:
    """The first level that gave less than RISE times the throughput of the best before it, if any did."""
    best = 0.0
    for at, each in enumerate(levels):
        if each.output_tokens_per_s < best * RISE:
            return at
        best = max(best, each.output_tokens_per_s)
    return None


def read_load_test(artifact: Artifact) -> LoadTest:
    """The result in an artifact's body. Raises InputError where it is no load test, IntegrityError where its
    body is not of schema 1."""
    if artifact.kind != "loadtest":
        raise InputError(f"{artifact.short} is not a load test")
    try:
        return LoadTest.model_validate(artifact.body)
    except ValidationError as error:
        raise IntegrityError(f"the body of {artifact.short} is no load test of schema 1: {error}") from error
