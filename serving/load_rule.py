"""What a gate policy may ask of a release under load, and whether a load test shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lensmith.artifact import Artifact
from lensmith.home import Home
from lensmith.section import Count, Positive, Section, refuse
from serving.loadtest.result import Level, Load, LoadTest, Spread, read_load_test

# What is said of a release, words of it, and what would change it.
Judged = tuple[Literal["pass", "fail", "undecidable"], str, str]
_LIMITS = ("first_token_p95_ms", "between_tokens_p95_ms", "latency_p95_ms")
_LEAST = ("requests_per_s", "output_tokens_per_s")


class LoadRule(Section):
    """How a release must answer at one load: that of `concurrency` requests in flight, or `rate` a second.

    requests: fewer decide nothing: of 20 the slowest one alone lies above the 95th percentile. failures: at
    most so many. Times are at most, throughputs at least as given.
    """

    concurrency: Count | None = None
    rate: Positive | None = None
    requests: Annotated[int, Field(ge=20)] = 20
    failures: Annotated[int, Field(ge=0)] = 0
    first_token_p95_ms: Positive | None = None
    between_tokens_p95_ms: Positive | None = None
    latency_p95_ms: Positive | None = None
    requests_per_s: Positive | None = None
    output_tokens_per_s: Positive | None = None

    @model_validator(mode="after")
    def _decides(self) -> LoadRule:
        problems = []
        if (self.concurrency is None) == (self.rate is None):
            problems.append("needs concurrency or rate, one of the two")
        if all(getattr(self, name) is None for name in (*_LIMITS, *_LEAST)):
            problems.append(f"demands nothing: give one of {', '.join((*_LIMITS, *_LEAST))}")
        refuse(problems)
        return self

    @property
    def load(self) -> Load:
        """The load that is asked about."""
        return Load(concurrency=self.concurrency, rate=self.rate)


def judge_load(home: Home, profile: str, rule: LoadRule) -> tuple[Judged, Artifact | None]:
    """Hold the newest load test of the profile with id `profile` against `rule`; the test that was judged.

    Raises IntegrityError where a load test's body is none.
    """
    tests = [each for each in home.all("loadtest") if each.manifest.inputs.get("profile") == profile]
    again = f"lensmith loadtest RELEASE {_flag(rule)}"
    if not tests:
        return ("undecidable", "it was never put under load as its profile serves it", again), None
    newest = max(tests, key=lambda each: each.body["measured_at"])
    result = read_load_test(newest)
    level = next((each for each in result.side.levels if each.load == rule.load), None)
    if level is None:
        there = ", ".join(str(each.load) for each in result.side.levels)
        return ("undecidable", f"{newest.short} was not measured with {rule.load}: {there}", again), newest
    if level.requests < rule.requests:
        what = f"{level.requests} requests with {rule.load} decide nothing, {rule.requests} are demanded"
        return ("undecidable", what, f"{again} --rows {rule.requests}"), newest
    figures, kept = _compare(level, rule)
    where = f"with {rule.load}, {level.requests} requests on {_machine(result)}, {newest.short}"
    return ("pass" if kept else "fail", f"{'; '.join(figures)}; {where}", ""), newest


def _compare(level: Level, rule: LoadRule) -> tuple[list[str], bool]:
    """Each figure that is asked about beside its limit, and whether all are within."""
    figures = [f"{level.failures} failed, {rule.failures} may"]
    kept = level.failures <= rule.failures
    spreads: dict[str, Spread | None] = {
        "first_token_p95_ms": level.first_token_ms,
        "between_tokens_p95_ms": level.between_tokens_ms,
        "latency_p95_ms": level.latency_ms,
    }
    for name, spread in spreads.items():
        limit = getattr(rule, name)
        if limit is None:
            continue
        # Nothing was answered: no time is no short time.
        kept = kept and spread is not None and spread.p95 <= limit
        figures.append(f"{name} {spread.p95 if spread else 'none'}, at most {limit:g}")
    for name in _LEAST:
        least = getattr(rule, name)
        if least is None:
            continue
        value: float = getattr(level, name)
        kept = kept and value >= least
        figures.append(f"{name} {value:g}, at least {least:g}")
    return figures, kept


def _flag(rule: LoadRule) -> str:
    return f"--concurrency {rule.concurrency}" if rule.concurrency else f"--rates {rule.rate:g}"


def _machine(result: LoadTest) -> str:
    return ", ".join(result.machine.gpus) or f"{result.machine.cores} CPU cores"
