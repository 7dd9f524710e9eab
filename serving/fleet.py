"""Several releases' adapters beside one base: what they must share, and that each is proven."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.artifact import Artifact, verify
from lensmith.attestation import Attestation
from lensmith.errors import GateRefused, InputError, IntegrityError, Problem
from lensmith.home import Home
from serving.command import LIVE_BASE, is_live
from serving.profile import find_places, read_profile
from serving.profile_file import Profile, Room
from serving.proven import engine_settings, last_proof, why_failed
from serving.release_file import Release, read_release

_RETRAIN = "give its recipe the others' settings: lensmith run RECIPE"


@dataclass(frozen=True)
class Member:
    """A release whose adapter may stand beside the base under `name`. trace: the served answers that its
    proof passed with. folder: what the engine loads."""

    name: str
    release: Artifact
    run: Artifact
    profile: Profile
    trace: Artifact
    folder: Path


@dataclass(frozen=True)
class Engineering:
    """What an engine is started with, as far as all its adapters share it; `settings` by dotted name."""

    profile: Profile
    settings: Mapping[str, Any]
    room: Room


def engineering(artifact: Artifact) -> Engineering:
    """How the engine of a live profile is started. Raises InputError for another profile."""
    profile = read_profile(artifact)
    if profile.adapter is None or profile.adapter.room is None:
        what = f"it serves {profile.mode} weights" if profile.adapter is None else "it has no room for others"
        mend = "set serve.mode: adapter and serve.live in its recipe, and run it again"
        raise InputError(f"{artifact.short} cannot be served live", [Problem(what, mend=mend)])
    return Engineering(profile, engine_settings(artifact, profile), profile.adapter.room)


def read_members(home: Home, releases: Sequence[Artifact], shared: Engineering, version: str) -> list[Member]:
    """The releases as all the members of an engine of `version`.

    Raises, each with every problem: InputError for what is no adapter's release, does not share the engine's
    settings, has a name that is taken, or finds no room; GateRefused without a serve proof that passed for
    this base, these settings and this version; IntegrityError for what was changed since it was made.
    """
    stated = [read_release(release) for release in releases]
    problems = [each for release in releases for each in _misfits(home, release, shared)]
    names = [each.name for each in stated]
    problems += [
        Problem("is the name of more than one adapter", name, "serve one of them")
        for name, count in Counter(names).items()
        if count > 1
    ]
    if LIVE_BASE in names:
        problems.append(Problem("is what the base is called", LIVE_BASE, "set another release.name"))
    if len(set(names)) > shared.room.max_adapters:
        mend = "lensmith unload NAME; or raise serve.live.max_adapters in all their recipes"
        what = f"{len(set(names))} adapters, there is room for {shared.room.max_adapters}"
        problems.append(Problem(what, "serve.live.max_adapters", mend))
    if problems:
        raise InputError("these releases cannot be live in one engine", problems)
    profiles = {each.id: each for each in home.all("profile")}
    proofs = [_proof(home, each, shared, version, profiles) for each in stated]
    if unproven := [each for each in proofs if isinstance(each, Problem)]:
        raise GateRefused("only an adapter that is proven may be live", unproven)
    members = [
        Member(
            each.name,
            release,
            home.by_id(each.subject),
            read_profile(profiles[each.profile]),
            home.by_id(proof.evidence["served_trace"]),
            _folder(home, profiles[each.profile]),
        )
        for release, each, proof in zip(releases, stated, proofs, strict=True)
        if isinstance(proof, Attestation)
    ]
    _verify(members)
    return members


def _misfits(home: Home, release: Artifact, shared: Engineering) -> list[Problem]:
    """Everything in which a release differs from how the engine is started."""
    stated = read_release(release)
    artifact = home.by_id(stated.profile)
    profile = read_profile(artifact)
    if not is_live(profile):
        what = "serves merged weights" if profile.adapter is None else "has no room for others"
        mend = "set serve.mode: adapter and serve.live in its recipe, and run it again"
        return [Problem(what, f"{stated.name} ({release.short})", mend)]
    ours = engine_settings(artifact, profile)
    return [
        Problem(
            f"{ours.get(key)!r}, the engine's is {shared.settings.get(key)!r}",
            f"{stated.name} ({release.short}) {key}",
            _RETRAIN if key != "base" else "another base needs an engine of its own",
        )
        for key in sorted(ours.keys() | shared.settings.keys())
        if ours.get(key) != shared.settings.get(key)
    ]


def _proof(
    home: Home, stated: Release, shared: Engineering, version: str, profiles: Mapping[str, Artifact]
) -> Attestation | Problem:
    """The serve proof that lets it in, or why there is none. The last word counts, as at the gates."""
    proof = last_proof(home, stated.subject, shared.settings, version, profiles)
    if proof is None:
        what = f"no serve proof of adapter {stated.subject[:12]} with vLLM {version} under these settings"
        return Problem(what, stated.name, "prove it: lensmith evaluate RECIPE")
    return proof if proof.passed else Problem(why_failed(proof), stated.name)


def _folder(home: Home, artifact: Artifact) -> Path:
    places = find_places(artifact, read_profile(artifact), home)
    # A live profile is of mode adapter.
    return places.adapter or places.checkpoint


def _verify(members: Sequence[Member]) -> None:
    problems: list[Problem] = []
    for member in members:
        for artifact in (member.release, member.run, member.trace):
            try:
                verify(artifact)
            except IntegrityError as error:
                found = error.problems or (Problem(error.summary),)
                problems += [Problem(p.what, f"{artifact.short} {p.where}".strip(), p.mend) for p in found]
    if problems:
        raise IntegrityError("what would be live is not what was released", problems)
