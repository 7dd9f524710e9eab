"""Attestations: statements about an id that cannot be edited or moved to another subject unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lensmith.attestation import attest, attestations
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


def test_several_are_kept_oldest_first(home: Home) -> None:
    first = attest(home, "serve-proof", SUBJECT, False, {}, {"engine": "1"})
    second = attest(home, "serve-proof", SUBJECT, True, {}, {"engine": "2"})
    merge = attest(home, "merge-proof", SUBJECT, True, {}, {})
    assert {each.digest for each in attestations(home, SUBJECT)} == {
        first.digest,
        second.digest,
        merge.digest,
    }
    assert len(attestations(home, SUBJECT, "serve-proof")) == 2


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
