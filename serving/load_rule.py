"""What a gate policy may ask of a release under load, and whether a load test shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lensmith.artifact import Artifact
from lensmith.attestation import attestations, last_word
from lensmith.home import Home
from lensmith.section import Count, Positive, Section, refuse
from serving.loadtest.result import Level, Load, LoadTest, Machine, Spread, read_load_test
from serving.profile import read_profile
from serving.profile_file import Profile
from serving.registry import Entry
from serving.release_file import Release

# What is said of a release, words of it, and what would change it.
Judged = tuple[Literal["pass", "fail", "undecidable"], str, str]
_LIMITS = ("first_token_p95_ms", "between_tokens_p95_ms", "latency_p95_ms")
_LEAST = ("requests_per_s", "output_tokens_per_s")


class BesideRule(Section):
    """How a release must answer beside the one in production, measured in turns with it at the same load:
    its times are at most, its throughputs at least so many times the other's."""

    first_token_p95: Positive | None = None
    between_tokens_p95: Positive | None = None
    latency_p95: Positive | None = None
    requests_per_s: Positive | None = None
    output_tokens_per_s: Positive | None = None

    @model_validator(mode="after")
    def _decides(self) -> BesideRule:
        if not self.model_dump(exclude_none=True):
            refuse([f"demands nothing: give one of {', '.join(type(self).model_fields)}"])
        return self


class LoadRule(Section):
    """How a release must answer at one load: that of `concurrency` requests in flight, or `rate` a second.

    requests: fewer decide nothing: of 20 the slowest one alone lies above the 95th percentile. failures: at
    most so many. Times are at most, throughputs at least as given. beside_production: as above, where
    something stands there.
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
    beside_production: BesideRule | None = None

    @model_validator(mode="after")
    def _decides(self) -> LoadRule:
        problems = []
        if (self.concurrency is None) == (self.rate is None):
            problems.append("needs concurrency or rate, one of the two")
        demands = (*_LIMITS, *_LEAST, "beside_production")
        if all(getattr(self, name) is None for name in demands):
            problems.append(f"demands nothing: give one of {', '.join(demands)}")
        refuse(problems)
        return self

    @property
    def load(self) -> Load:
        """The load that is asked about."""
        return Load(concurrency=self.concurrency, rate=self.rate)


def judge_load(
    home: Home, release: Release, rule: LoadRule, production: Entry | None = None
) -> tuple[Judged, Artifact | None]:
    """Hold the newest load test of the release's profile against `rule`; the test that was judged.

    A test in another engine than the one that the release was last proven in, or on other hardware than its
    profile is for, says nothing of it. production: what stands there now. Raises IntegrityError where a load
    test's body is none, or the profile was edited.
    """
    tests = [each for each in home.all("loadtest") if each.manifest.inputs.get("profile") == release.profile]
    again = f"lensmith loadtest RELEASE {_flag(rule)}"
    if rule.beside_production and production:
        again += f" --against {production.name}@production"
    if not tests:
        return ("undecidable", "it was never put under load as its profile serves it", again), None
    tests.sort(key=lambda each: each.body["measured_at"], reverse=True)
    reasons = {each.id: _unlike(home, release, read_load_test(each)) for each in tests}
    newest = next((each for each in tests if not reasons[each.id]), None)
    if newest is None:
        last = tests[0]
        return ("undecidable", f"{last.short} {reasons[last.id]}", again), last
    result = read_load_test(newest)
    level = _level(result.side.levels, rule)
    if level is None:
        there = ", ".join(str(each.load) for each in result.side.levels)
        return ("undecidable", f"{newest.short} was not measured with {rule.load}: {there}", again), newest
    if level.requests < rule.requests:
        what = f"{level.requests} requests with {rule.load} decide nothing, {rule.requests} are demanded"
        return ("undecidable", what, f"{again} --rows {rule.requests}"), newest
    figures, kept = _compare(level, rule)
    if rule.beside_production and production and production.profile != release.profile:
        other = result.against
        if other is None or other.profile != production.profile:
            than = f"release {other.release[:12]}" if other else "nothing"
            what = (
                f"{newest.short} was measured against {than}, release {production.id[:12]} is in production"
            )
            return ("undecidable", what, again), newest
        theirs = _level(other.levels, rule)
        if theirs is None or theirs.requests < rule.requests or theirs.failures == theirs.requests:
            what = f"production's release {production.id[:12]} answered too little with {rule.load}"
            return ("undecidable", f"{what}, in {newest.short}", again), newest
        beside, as_good = _compare_beside(level, theirs, rule.beside_production)
        figures, kept = figures + beside, kept and as_good
    where = f"with {rule.load}, {level.requests} requests on {_machine(result)}, {newest.short}"
    return ("pass" if kept else "fail", f"{'; '.join(figures)}; {where}", ""), newest


def _level(levels: Sequence[Level], rule: LoadRule) -> Level | None:
    return next((each for each in levels if each.load == rule.load), None)


def _unlike(home: Home, release: Release, result: LoadTest) -> str:
    """Why a load test is of something else than the release as it is proven and served; "" if it is not."""
    profile = read_profile(home.by_id(release.profile))
    version = _proven_version(home, release) or profile.engine.version
    found, wanted = result.engine, profile.engine
    if (found.name, found.version, found.device) != (wanted.name, version, wanted.device):
        return (
            f"was measured in {found.name} {found.version} built for {found.device}, the release is proven in"
            f" {wanted.name} {version} built for {wanted.device}"
        )
    if result.side.profile != release.profile or result.side.subject != release.subject:
        return f"has the figures of another release, {result.side.release[:12]}"
    if not _fits(result.machine, profile):
        return f"was measured on {_machine(result)}, the profile is for {_asked_machine(profile)}"
    return ""


def _proven_version(home: Home, release: Release) -> str | None:
    """Of the engine in the last serve proof under the release's profile."""
    found = [
        each
        for each in attestations(home, release.subject, "serve-proof")
        if each.evidence.get("profile") == release.profile
    ]
    return last_word(found).statement.get("engine_version") if found else None


def _fits(machine: Machine, profile: Profile) -> bool:
    """Whether the engine had what its profile is for: the very GPUs; of CPUs as many cores."""
    if profile.cuda is not None:
        count = profile.cuda.tensor_parallel * profile.cuda.data_parallel
        taken = machine.gpus[:count]
        return len(taken) == count and ", ".join(dict.fromkeys(taken)) == profile.cuda.gpu
    return profile.cpu is None or machine.cores >= profile.cpu.threads


def _asked_machine(profile: Profile) -> str:
    if profile.cuda is not None:
        count = profile.cuda.tensor_parallel * profile.cuda.data_parallel
        return f"{count} of {profile.cuda.gpu or 'GPUs that it does not name'}"
    return f"{profile.cpu.threads} CPU cores" if profile.cpu else "a CPU"


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


def _compare_beside(ours: Level, theirs: Level, rule: BesideRule) -> tuple[list[str], bool]:
    """Each figure that is asked about as a multiple of production's, and whether all are within."""
    figures: list[str] = []
    kept = True
    times = {
        "first_token_p95": (ours.first_token_ms, theirs.first_token_ms),
        "between_tokens_p95": (ours.between_tokens_ms, theirs.between_tokens_ms),
        "latency_p95": (ours.latency_ms, theirs.latency_ms),
    }
    for name, (our, their) in times.items():
        limit = getattr(rule, name)
        if limit is None:
            continue
        share = our.p95 / their.p95 if our and their and their.p95 else None
        kept = kept and share is not None and share <= limit
        figures.append(f"{name} {_times(share)} production's, at most {limit:g}")
    for name in _LEAST:
        least = getattr(rule, name)
        if least is None:
            continue
        our_rate, their_rate = getattr(ours, name), getattr(theirs, name)
        share = our_rate / their_rate if their_rate else None
        kept = kept and share is not None and share >= least
        figures.append(f"{name} {_times(share)} production's, at least {least:g}")
    return figures, kept


def _times(share: float | None) -> str:
    return "cannot be compared with" if share is None else f"{share:.3g} times"


def _flag(rule: LoadRule) -> str:
    return f"--concurrency {rule.concurrency}" if rule.concurrency else f"--rates {rule.rate:g}"


def _machine(result: LoadTest) -> str:
    return ", ".join(result.machine.gpus) or f"{result.machine.cores} CPU cores"
