"""Promote and roll back: the two acts that change what a channel holds, each with who and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lensmith.artifact import Artifact, verify
from lensmith.attestation import attest, attestations
from lensmith.base import verify_base
from lensmith.decision import check_decision
from lensmith.errors import GateRefused, InputError, IntegrityError, Problem
from lensmith.home import Home
from serving.gates import Policy, judge
from serving.registry import Act, Channel, Entry, Registry, channel_named
from serving.release_file import read_release


def promote(home: Home, release: Artifact, channel: str, who: str, why: str, policy: Policy) -> Act:
    """Put `release` into a channel if it meets every demand of `policy`; the act, as logged.

    A release that stands there already stays, and the act that put it there is returned. Production
    re-hashes the whole lineage first. The verdict is attested either way, as predicate "gate".
    Raises GateRefused with every unmet demand, or when another manager was quicker; IntegrityError for
    anything changed since it was made; InputError without who, why or a known channel.
    """
    where = channel_named(channel)
    check_decision(who, why)
    stated = read_release(release)
    entry = Entry(release.id, stated.name, stated.subject, stated.profile)
    with Registry.open(home) as registry:
        with home.locked("registry"):
            _complete(home, registry, stated.name, where)
        current = registry.find_current(stated.name, where)
        if current is not None and current.release == release.id:
            return current
        if where == "production":
            _verify_whole(home, release)
        else:
            verify(release)
        production = registry.find_current(stated.name, "production")
        rival = registry.entry(production.release) if production else None
        demands = policy.demands(where)
        verdict = judge(home, release, demands, rival)
        statement = {
            "name": stated.name,
            "channel": where,
            "who": who,
            "policy": policy.digest,
            "demands": demands.model_dump(mode="json"),
            "findings": verdict.statement(),
        }
        attest(home, "gate", release.id, verdict.passed, verdict.evidence, statement)
        if not verdict.passed:
            raise GateRefused(f"{release.short} may not go to {stated.name}@{where}", verdict.unmet())
        with _attested(home, registry, stated.name, where):
            return registry.move("promotion", entry, where, who, why, current, policy.digest)


def rollback(home: Home, name: str, channel: str, who: str, why: str) -> Artifact:
    """Put back the release that stood in a channel before the present one; that release.

    Its whole lineage is re-hashed first. Raises InputError where there was none before, IntegrityError
    where it is gone or not what it was, GateRefused when another manager was quicker.
    """
    where = channel_named(channel)
    check_decision(who, why)
    with Registry.open(home) as registry:
        with home.locked("registry"):
            _complete(home, registry, name, where)
        current = registry.current(name, where)
        earlier = registry.previous(name, where)
        if earlier is None:
            raise InputError(
                f"there is no release to roll {name}@{where} back to",
                [
                    Problem(
                        f"{current.release[:12]} is the first that stood there", mend="promote another one"
                    )
                ],
            )
        release = _find(home, earlier, f"{name}@{where}")
        _verify_whole(home, release)
        with _attested(home, registry, name, where):
            registry.move("rollback", registry.entry(earlier), where, who, why, current)
        return release


def _find(home: Home, release: str, place: str) -> Artifact:
    for artifact in home.all("release"):
        if artifact.id == release:
            return artifact
    raise IntegrityError(
        f"{place} cannot be rolled back",
        [Problem(f"release {release[:12]} is gone from {home.root}", mend="restore it, or promote another")],
    )


def _verify_whole(home: Home, release: Artifact) -> None:
    """Re-hash a release and all it was made from; the base's own files where it is served from them."""
    for artifact in home.verify(release):
        if artifact.kind == "base" and read_release(release).mode == "adapter":
            verify_base(artifact)


@contextmanager
def _attested(home: Home, registry: Registry, name: str, channel: Channel) -> Iterator[None]:
    """For the move of a channel: nobody else moves meanwhile, and it is attested when it is made."""
    with home.locked("registry"):
        yield
        _complete(home, registry, name, channel)


def _complete(home: Home, registry: Registry, name: str, channel: Channel) -> None:
    """Attest the channel's last act unless that is done: the registry decides, the attestation repeats it.

    A kill between the two leaves the last act without one; the next act on the channel makes up for it.
    """
    act = registry.find_current(name, channel)
    if act is None:
        return
    told = attestations(home, act.release, act.kind)
    if any(each.statement["act"] == act.seq for each in told):
        return
    statement = {
        "act": act.seq,
        "at": act.at,
        "name": act.name,
        "channel": act.channel,
        "who": act.who,
        "why": act.why,
        "policy": act.policy,
    }
    evidence = {"before": act.before} if act.before else {}
    attest(home, act.kind, act.release, True, evidence, statement)
