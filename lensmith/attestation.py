"""A statement about an artifact's id, made at any time after it: a proof, a gate's verdict, an approval.

Attestations live in `<home>/attestations/<subject id>/`, one JSON file each, never inside the artifact:
a new engine needs a new serve proof, not a new release.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.errors import IntegrityError
from lensmith.files import digest_json, write_json
from lensmith.home import Home

Predicate = Literal["merge-proof", "serve-proof", "gate", "promotion", "rollback", "retirement"]


class Attestation(BaseModel):
    """`passed` is the verdict; `evidence` the ids of the artifacts it was drawn from, by role."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: int = 1
    predicate: Predicate
    subject: str
    passed: bool
    evidence: dict[str, str]
    statement: dict[str, Any]
    made_at: str
    digest: str

    @property
    def second(self) -> str:
        """When it was made, for people: ISO 8601, UTC, to the second."""
        return datetime.datetime.fromisoformat(self.made_at).isoformat(timespec="seconds")

    def computed_digest(self) -> str:
        """SHA-256 over everything but the digest itself."""
        return digest_json(self.model_dump(exclude={"digest"}))


def attest(
    home: Home,
    predicate: Predicate,
    subject: str,
    passed: bool,
    evidence: dict[str, str],
    statement: dict[str, Any],
) -> Attestation:
    """Write one attestation about the artifact with id `subject` and return it."""
    # The last of them counts, and several are made within a second.
    made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    content = {
        "schema_version": 1,
        "predicate": predicate,
        "subject": subject,
        "passed": passed,
        "evidence": evidence,
        "statement": statement,
        "made_at": made_at,
    }
    attestation = Attestation(**content, digest=digest_json(content))
    name = f"{predicate}-{attestation.digest[:16]}.json"
    write_json(_folder(home, subject) / name, attestation.model_dump())
    return attestation


def attestations(home: Home, subject: str, predicate: Predicate | None = None) -> list[Attestation]:
    """The attestations about `subject`, oldest first.

    Raises IntegrityError for one that was edited, is about another subject, or cannot be read.
    """
    found = [_read(path, subject) for path in sorted(_folder(home, subject).glob("*.json"))]
    chosen = [each for each in found if predicate is None or each.predicate == predicate]
    return sorted(chosen, key=lambda each: each.made_at)


def last_word(found: Sequence[Attestation]) -> Attestation:
    """The one of these that counts: the latest, and one that failed where several are of the same time.

    found: as `attestations` gives them, not empty.
    """
    latest = [each for each in found if each.made_at == found[-1].made_at]
    return next((each for each in latest if not each.passed), latest[-1])


def _folder(home: Home, subject: str) -> Path:
    return home.root / "attestations" / subject[:24]


def _read(path: Path, subject: str) -> Attestation:
    try:
        attestation = Attestation.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise IntegrityError(f"{path} is not an attestation: {error}") from error
    if attestation.computed_digest() != attestation.digest:
        raise IntegrityError(f"{path} was changed after it was written")
    if attestation.subject != subject:
        raise IntegrityError(f"{path} is about {attestation.subject[:12]}, not {subject[:12]}")
    return attestation
