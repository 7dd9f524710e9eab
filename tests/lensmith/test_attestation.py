"""Attestations: statements about an id that cannot be edited or moved to another subject unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lensmith.attestation import attest, attestations, last_word
from lensmith.errors import IntegrityError
from lensmith.home import Home

SUBJECT = "a" * 64
OTHER = "b" * 64


def written(home: Home, subject: str = SUBJECT) -> Path:
    (path,) = (home.root / "attestations" / subject[:24]).glob("*.json")
    return path


def test_what_is_attested_is_read_back(home: Home) -> None:
    made = attest(home, "merge-proof", SUBJECT, True, {"trace": OTHER}, {"rows": 8, "largest": 1e-7})
    assert attestations(home, SUBJECT) == [made]
    assert attestations(home, SUBJECT, "serve-proof") == []
    assert attestations(home, OTHER) == []


def test_several_of_a_second_are_kept_oldest_first(home: Home) -> None:
    proofs = [
        attest(home, "serve-proof", SUBJECT, number % 2 == 0, {}, {"engine": number}) for number in range(9)
    ]
    merge = attest(home, "merge-proof", SUBJECT, True, {}, {})
    assert attestations(home, SUBJECT) == [*proofs, merge]
    assert attestations(home, SUBJECT, "serve-proof") == proofs
    assert last_word(proofs) == proofs[-1]
    assert last_word(proofs[:-1]) == proofs[-2]


def test_of_one_instant_a_failure_counts(home: Home) -> None:
    """Also where it was made by a version that told the seconds alone."""
    made = attest(home, "serve-proof", SUBJECT, True, {}, {})
    early = made.model_copy(update={"made_at": f"{made.second}"})
    failed = early.model_copy(update={"passed": False})
    for both in ([early, failed], [failed, early]):
        assert last_word(both) == failed
        assert last_word([*both, made]) == made


@pytest.mark.parametrize(
    "change",
    [
        {"passed": True},
        {"predicate": "serve-proof"},
        {"statement": {"rows": 64}},
        {"evidence": {}},
        {"subject": OTHER},
        {"made_at": "2020-01-01T00:00:00+00:00"},
        {"schema_version": 2},
        {"more": 1},
    ],
)
def test_an_edited_one_is_refused(home: Home, change: dict[str, object]) -> None:
    attest(home, "merge-proof", SUBJECT, False, {"trace": OTHER}, {"rows": 8})
    path = written(home)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(IntegrityError):
        attestations(home, SUBJECT)


def test_one_of_another_subject_is_refused(home: Home) -> None:
    attest(home, "merge-proof", OTHER, True, {}, {})
    path = written(home, OTHER)
    place = home.root / "attestations" / SUBJECT[:24]
    place.mkdir()
    (place / path.name).write_bytes(path.read_bytes())
    with pytest.raises(IntegrityError, match="is about bbbbbbbbbbbb, not aaaaaaaaaaaa"):
        attestations(home, SUBJECT)


def test_a_truncated_one_is_refused_not_skipped(home: Home) -> None:
    attest(home, "merge-proof", SUBJECT, True, {}, {})
    written(home).write_text('{"passed": true')
    with pytest.raises(IntegrityError, match="is not an attestation"):
        attestations(home, SUBJECT)
