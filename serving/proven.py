"""The serve proof that speaks for an engine: about what it serves, of its version, under its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensmith.artifact import Artifact
from lensmith.attestation import Attestation, attestations, last_word
from lensmith.errors import GateRefused, Problem
from lensmith.home import Home
from serving.engine_files import ADAPTER_FOLDER, ENGINE_FOLDER
from serving.host import is_local
from serving.profile import read_profile
from serving.profile_file import Profile

# What each of several has of its own beside one base, or what does not change an answer beyond a proof's
# bounds. The version is that of the engine which runs: the proof has to be of it.
_OWN = ("subject", "served_name", "port", "engine.version", "cpu.threads", "adapter.towers")
_PROVE = "prove it: lensmith evaluate RECIPE"


def engine_settings(artifact: Artifact, profile: Profile) -> dict[str, Any]:
    """What an engine is started with by dotted name, the files that it reads from the profile included."""
    settings = _flat(profile.model_dump(mode="json"), "")
    for name in _OWN:
        settings.pop(name, None)
    own = f"{ENGINE_FOLDER}/{ADAPTER_FOLDER}/"
    return settings | {
        each.path: each.sha256
        for each in artifact.manifest.files
        if each.path.startswith(f"{ENGINE_FOLDER}/") and not each.path.startswith(own)
    }


def last_proof(
    home: Home,
    subject: str,
    settings: Mapping[str, Any],
    version: str,
    profiles: Mapping[str, Artifact],
) -> Attestation | None:
    """The last word on `subject` in an engine of `version` with these `engine_settings`, if there is one.

    profiles: those of the home, by id.
    """
    found = [
        each
        for each in attestations(home, subject, "serve-proof")
        if each.statement.get("engine_version") == version
        and (profile := profiles.get(each.evidence.get("profile", ""))) is not None
        and engine_settings(profile, read_profile(profile)) == settings
    ]
    return last_word(found) if found else None


def why_failed(proof: Attestation) -> str:
    """In words, of one that did."""
    reasons = "; ".join(str(finding) for finding in proof.statement.get("findings", []))
    return f"the serve proof of {proof.second} failed: {reasons}"


def check_proven(home: Home, artifact: Artifact, profile: Profile, version: str) -> str | None:
    """What has to be said of a profile that an engine of `version` is to serve: None where it is proven.

    Raises GateRefused where the proof failed, and where there is none and other machines reach the address.
    """
    profiles = {each.id: each for each in home.all("profile")}
    proof = last_proof(home, profile.subject, engine_settings(artifact, profile), version, profiles)
    if proof is not None and proof.passed:
        return None
    if proof is not None:
        raise GateRefused(
            f"{artifact.short} is not served", [Problem(why_failed(proof), mend=f"mend that and {_PROVE}")]
        )
    what = f"no serve proof of {profile.subject[:12]} with vLLM {version} under these settings"
    if not is_local(profile.host):
        mend = f"{_PROVE}; or serve it on 127.0.0.1"
        raise GateRefused(f"{artifact.short} is not served on {profile.host}", [Problem(what, mend=mend)])
    return f"not proven: {what}"


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
