"""The capability matrix says yes to nothing that no test has shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from family_matrix import RESULTS, UNTESTED, WHOLE, Shown, families_reference, read_cells

from lensmith.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent.parent
SHOWN = Shown("passed", "2026-01-02", (("torch", "2.13.0"),))


def lines_of(title: str, text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {title} |")]


def test_without_results_nothing_is_shown() -> None:
    text = families_reference({})
    assert "| yes" not in text
    for family in FAMILIES.values():
        whole, *towers = lines_of(family.title, text)
        cells = dict(zip(WHOLE, whole.strip("| ").split(" | ")[1:], strict=True))
        # Nothing to test where there are none.
        assert (cells.pop("experts") == "none") == (family.experts is None)
        assert set(cells.values()) == {UNTESTED}
        assert len(towers) == 3


def test_a_cell_names_its_run() -> None:
    text = families_reference({("gemma3", "vision", "lora"): SHOWN})
    assert f"| Gemma 3 | vision | yes (1) | {UNTESTED} |" in text
    assert "1. 2026-01-02: torch 2.13.0" in text
    assert text.count("yes (1)") == 1


def test_a_failure_is_no_yes() -> None:
    text = families_reference({("gemma3", "vision", "lora"): Shown("failed", "2026-01-02", ())})
    assert "| Gemma 3 | vision | FAILED (1) |" in text
    assert "yes (" not in text


def test_what_is_shown_not_to_hold_is_no_yes() -> None:
    text = families_reference({("gemma3", "", "serve image refused"): SHOWN})
    assert lines_of("Gemma 3", text)[0].endswith("| no, the proof names it (1) |")
    failed = Shown("failed", "2026-01-02", ())
    assert "| FAILED (1) |" in families_reference({("gemma3", "", "serve image refused"): failed})
    assert "yes (" not in text


def test_committed_cells_are_of_families_that_exist() -> None:
    cells = read_cells()
    assert {family for family, _, _ in cells} <= set(FAMILIES)
    assert all(each.date and dict(each.versions).get("transformers") for each in cells.values())
    content = json.loads(RESULTS.read_bytes())["cells"]
    assert content == sorted(content, key=lambda each: (each["family"], each["tower"], each["what"]))


@pytest.mark.slow
def test_a_run_replaces_its_own_cells_alone(tmp_path: Path) -> None:
    kept = {"family": "gemma3", "tower": "", "what": "load", "outcome": "passed"}
    kept |= {"date": "2020-01-01", "versions": {"torch": "1"}}
    ran = kept | {"what": "rows"}
    results = tmp_path / "families.json"
    results.write_text(json.dumps({"cells": [kept, ran]}))
    (tmp_path / "test_cells.py").write_text(
        "def test_one(shows):\n    shows('gemma3', '', 'rows')\n"
        "def test_two(shows):\n    shows('gemma3', '', 'rows')\n    assert False\n"
        "def test_three(shows):\n    shows('gemma3', 'vision', 'lora')\n"
    )
    environment = {**os.environ, "LENSMITH_FAMILY_RESULTS": str(results), "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.family_results", str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout
    cells = {(each["tower"], each["what"]): each for each in json.loads(results.read_bytes())["cells"]}
    assert cells["", "load"] == kept
    assert cells["", "rows"]["outcome"] == "failed"
    assert cells["", "rows"]["date"] != "2020-01-01"
    assert cells["vision", "lora"]["outcome"] == "passed"
