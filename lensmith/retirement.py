"""Exams that are over: their rows were shown to people who correct labels, so nothing is judged by them."""

from __future__ import annotations

from lensmith.artifact import Artifact
from lensmith.attestation import Attestation, Predicate, attest, attestations
from lensmith.decision import check_decision
from lensmith.errors import GateRefused, InputError, Problem
from lensmith.home import Home

PREDICATE: Predicate = "retirement"
MEND = "make a new exam: set another data.split.seed, then lensmith run RECIPE"


def retire(home: Home, held_out: Artifact, who: str, why: str, report: Artifact, rows: int) -> Attestation:
    """Record, beside the exam, that `rows` of its rows are shown, those that `report` found wrong.

    For good: nothing takes it back. Raises InputError without who or why, or for anything but an exam.
    """
    check_decision(who, why)
    if held_out.kind != "held_out":
        raise InputError(f"{held_out.short} is not a held-out set")
    statement = {"who": who, "why": why, "rows": rows}
    return attest(home, PREDICATE, held_out.id, True, {"report": report.id}, statement)


def retirement(home: Home, held_out: str) -> str:
    """Who retired the exam with this id, when and why, in words; "" while it is in force."""
    found = attestations(home, held_out, PREDICATE)
    if not found:
        return ""
    first = found[0]
    return f"{first.statement['who']} retired it at {first.second}: {first.statement['why']}"


def check_in_force(home: Home, held_out: Artifact) -> None:
    """Raise GateRefused where the exam was retired."""
    if over := retirement(home, held_out.id):
        raise GateRefused(f"{held_out.short} is no exam any more", [Problem(over, held_out.short, MEND)])
