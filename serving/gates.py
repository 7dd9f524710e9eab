"""The gates: a policy's demands on a release, each answered with pass, fail or undecidable, and numbers."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError, field_validator

from lensmith.artifact import Artifact
from lensmith.attestation import Attestation, attestations, last_word
from lensmith.errors import InputError, Problem
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.report import LOWER_IS_BETTER, MetricName, Report, read_report
from lensmith.retirement import MEND, retirement
from lensmith.section import Section, Unusable
from lensmith.yaml_file import read_yaml
from serving.load_rule import BesideRule, LoadRule, judge_load
from serving.registry import Channel, Entry
from serving.release_file import Release, read_release

Proof = Literal["merge-proof", "serve-proof"]
Outcome = Literal["pass", "fail", "undecidable"]
_AGAIN = "lensmith run RECIPE makes it"


class GainRule(Section):
    """How much better a release must be than what it replaces."""

    metric: MetricName
    above: Annotated[float, Field(ge=0, lt=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    groups: Annotated[int, Field(ge=2)]


class Demands(Section):
    """What one channel asks for."""

    proofs: list[Proof]
    gain: GainRule | None = None
    load: LoadRule | None = None


class StagingDemands(Demands):
    """What a policy may ask for staging: more than the proofs, never less."""

    @field_validator("proofs")
    @classmethod
    def _all_proofs(cls, proofs: list[Proof]) -> list[Proof]:
        missing = [proof for proof in get_args(Proof) if proof not in proofs]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}: no policy may leave a proof out")
        return proofs


class ProductionDemands(StagingDemands):
    """What a policy may ask for production: the proofs and a gain, never less."""

    model_config = ConfigDict(validate_default=True)

    @field_validator("gain")
    @classmethod
    def _a_gain(cls, gain: GainRule | None) -> GainRule:
        if gain is None:
            raise ValueError("is missing: no policy may let a model into production without a gain")
        return gain


class Policy(Section):
    """A gate policy, see recipes/gates/default.yaml."""

    version: Literal[1]
    staging: StagingDemands
    production: ProductionDemands

    @property
    def digest(self) -> str:
        """SHA-256 of what the policy says, as canonical JSON: comments and the order of keys aside."""
        said = self.model_dump(mode="json")
        for demands in (said["staging"], said["production"]):
            # A policy that asks for no load is the one that was logged before policies could.
            if demands["load"] is None:
                del demands["load"]
            elif demands["load"]["beside_production"] is None:
                del demands["load"]["beside_production"]
        return digest_json(said)

    def demands(self, channel: Channel) -> Demands:
        """What `channel` asks for."""
        return self.staging if channel == "staging" else self.production


@dataclass(frozen=True)
class Finding:
    """The answer to one demand, in words with numbers; mend: what would change it."""

    demand: str
    outcome: Outcome
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Verdict:
    """Every demand's finding. evidence: what they were drawn from, ids and attestation digests by role."""

    findings: tuple[Finding, ...]
    evidence: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether all demands are met; undecidable is not met."""
        return all(finding.outcome == "pass" for finding in self.findings)

    def unmet(self) -> list[Problem]:
        """Each unmet demand as a problem."""
        return [
            Problem(f"{finding.outcome}: {finding.text}", finding.demand, finding.mend)
            for finding in self.findings
            if finding.outcome != "pass"
        ]

    def statement(self) -> list[dict[str, Any]]:
        """The findings as JSON values."""
        return [asdict(finding) for finding in self.findings]


def read_policy(path: Path) -> Policy:
    """The policy in a YAML file. Raises InputError with every problem: file, line, key."""
    file = read_yaml(path)
    try:
        return Policy.model_validate(file.content)
    except ValidationError as error:
        problems: list[Problem] = []
        for each in error.errors():
            dotted = ".".join(map(str, each["loc"]))
            line = file.lines.get(dotted) or file.lines.get(dotted.rpartition(".")[0], 1)
            mend = _did_you_mean(dotted) if each["type"] == "extra_forbidden" else ""
            cause = each.get("ctx", {}).get("error")
            told = (
                cause.problems
                if isinstance(cause, Unusable)
                else (each["msg"].removeprefix("Value error, "),)
            )
            problems += [Problem(what, f"{path}:{line} {dotted}", mend) for what in told]
        raise InputError(f"{path} is not a gate policy", problems) from error


def _did_you_mean(dotted: str) -> str:
    known = [
        name for section in (Policy, Demands, GainRule, LoadRule, BesideRule) for name in section.model_fields
    ]
    close = difflib.get_close_matches(dotted.rpartition(".")[2], known, n=1)
    return f"did you mean {close[0]}?" if close else "remove it"


def judge(home: Home, release: Artifact, demands: Demands, production: Entry | None) -> Verdict:
    """Hold `release` against `demands`; production: what stands there now under its name, if anything.

    Raises IntegrityError where an attestation was edited or is about something else.
    """
    stated = read_release(release)
    findings = _retired_exam(home, stated)
    evidence: dict[str, str] = {"model": stated.subject, "held_out": stated.exam.held_out}
    for predicate in demands.proofs:
        finding, proof = _proof(home, stated, predicate)
        findings.append(finding)
        if proof is not None:
            evidence[predicate] = proof.digest
    if demands.gain is not None:
        finding, report = _gain(home, release, stated, demands.gain, production)
        findings.append(finding)
        if report is not None:
            evidence["report"] = report.id
    if demands.load is not None:
        (outcome, text, mend), test = judge_load(home, stated, demands.load, production)
        findings.append(Finding("load", outcome, text, mend))
        if test is not None:
            evidence["loadtest"] = test.id
    return Verdict(tuple(findings), evidence)


def _retired_exam(home: Home, release: Release) -> list[Finding]:
    """What no policy can allow: a release that was judged by an exam whose rows were shown."""
    over = retirement(home, release.exam.held_out)
    about = f"held-out set {release.exam.held_out[:12]}"
    return [Finding("exam", "fail", f"{about} is no exam any more: {over}", MEND)] if over else []


def _proof(home: Home, release: Release, predicate: Proof) -> tuple[Finding, Attestation | None]:
    if predicate == "merge-proof" and release.mode == "adapter":
        return Finding(predicate, "pass", "nothing was merged: the adapter is served beside its base"), None
    found = attestations(home, release.subject, predicate)
    if predicate == "serve-proof":
        found = [each for each in found if each.evidence.get("profile") == release.profile]
    about = f"model {release.subject[:12]}" + (" under its profile" if predicate == "serve-proof" else "")
    if not found:
        return Finding(predicate, "fail", f"there is none about {about}", _AGAIN), None
    proof = last_word(found)
    if not proof.passed:
        reasons = "; ".join(str(finding) for finding in proof.statement["findings"])
        text = f"the one of {proof.second} failed: {reasons or 'no reason is stated'}"
        return Finding(predicate, "fail", text), proof
    return Finding(predicate, "pass", f"passed at {proof.second}, about {about}"), proof


def _gain(
    home: Home, release: Artifact, stated: Release, rule: GainRule, production: Entry | None
) -> tuple[Finding, Artifact | None]:
    rival = production.subject if production else stated.base
    if rival == stated.subject:
        text = f"model {rival[:12]} is in production already, under another release: it cannot beat itself"
        return Finding("gain", "fail", text), None
    what = f"production's model {rival[:12]}" if production else f"base {rival[:12]}"
    candidates = _comparisons(home, release, stated)
    matching = [
        artifact
        for artifact, report in candidates
        if report.comparison
        and report.comparison.subject == rival
        and (production is None or _profile(home, report.comparison.trace) == production.profile)
    ]
    if not matching:
        seen = sorted({report.comparison.subject[:12] for _, report in candidates if report.comparison})
        text = f"no report compares it with {what} on held-out set {stated.exam.held_out[:12]}" + (
            f"; there is one with {', '.join(seen)}" if seen else ""
        )
        return Finding("gain", "fail", text, "lensmith run RECIPE asks both again and compares"), None
    report = read_report(matching[0])
    return _measured(report, rule, what), matching[0]


def _comparisons(home: Home, release: Artifact, stated: Release) -> list[tuple[Artifact, Report]]:
    """The release's own report first, then those made later from the very same served answers."""
    own = home.by_id(stated.exam.report)
    trace = own.manifest.inputs["trace"]
    others = [each for each in home.all("report") if each.id != own.id]
    reports = [
        (each, read_report(each))
        for each in (own, *others)
        if each.manifest.inputs["trace"] == trace
        and each.manifest.inputs["held_out"] == release.manifest.inputs["held_out"]
    ]
    return [(each, report) for each, report in reports if report.subject == stated.subject]


def _profile(home: Home, trace: str) -> str:
    return home.by_id(trace).manifest.inputs.get("profile", "")


def _measured(report: Report, rule: GainRule, what: str) -> Finding:
    comparison = report.comparison
    if comparison is None or rule.metric not in comparison.differences:
        return Finding(
            "gain", "undecidable", f"the report has no {rule.metric}: its answers are {report.answer}"
        )
    difference = comparison.differences[rule.metric]
    if report.groups < rule.groups or difference.interval is None:
        text = f"{report.groups} held-out groups decide nothing, {rule.groups} are demanded"
        return Finding("gain", "undecidable", text, "label more groups")
    if report.confidence < rule.confidence:
        text = f"the interval is at {report.confidence:g}, {rule.confidence:g} is demanded"
        return Finding("gain", "undecidable", text, f"evaluate.confidence: {rule.confidence:g}")
    value, lower, upper = difference.value, difference.interval.lower, difference.interval.upper
    if rule.metric in LOWER_IS_BETTER:
        value, lower, upper = -value, -upper, -lower
    text = (
        f"{rule.metric} gains {value:+.4f} over {what}, {report.confidence:.0%}"
        f" interval {lower:+.4f} to"
        f" {upper:+.4f}, {report.rows} rows, {report.groups} groups; its lower bound must"
        f" be above {rule.above:g}"
    )
    return Finding("gain", "pass" if lower > rule.above else "fail", text)
