"""The capability matrix says yes to nothing that no test has shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from family_matrix import RESULTS, UNTESTED, WHOLE, Shown, families_reference, read_cells

from lensmith.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent.parent
SHOWN = Shown("passed", "2026-01-02", (("torch", "2.13.0"),))


def lines_of(title: str, text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {title} |")]


def cells_of(line: str) -> list[str]:
    return line.strip("| ").split(" | ")[1:]


def test_without_results_nothing_is_shown() -> None:
    text = families_reference({})
    assert "| yes" not in text
    for what, words in WHOLE.items():
        (line,) = lines_of(words, text)
        for family, cell in zip(FAMILIES.values(), cells_of(line), strict=True):
            # Nothing to test where there are none.
            missing = {"experts": family.experts is None}
            missing |= dict.fromkeys(("video", "serve video"), family.video is None)
            assert cell == ("none" if missing.get(what) else UNTESTED)
    for family in FAMILIES.values():
        assert len(lines_of(family.title, text)) == 3


@pytest.mark.parametrize("what", ["video", "serve video"])
def test_families_without_videos_have_none(what: str) -> None:
    (line,) = lines_of(WHOLE[what], families_reference())
    cells = dict(zip(FAMILIES, cells_of(line), strict=True))
    assert [name for name, cell in cells.items() if cell == "none"] == ["gemma3", "deepseek_ocr2"]
    assert UNTESTED not in cells.values()


def test_every_family_is_divided_both_ways() -> None:
    text = families_reference()
    for what in ("zero3", "fsdp2"):
        (line,) = lines_of(WHOLE[what], text)
        assert all(cell.startswith("yes") for cell in cells_of(line))


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
    (line,) = lines_of(WHOLE["serve image"], text)
    assert dict(zip(FAMILIES, cells_of(line), strict=True))["gemma3"] == "no, the proof names it (1)"
    failed = Shown("failed", "2026-01-02", ())
    assert "| FAILED (1) |" in families_reference({("gemma3", "", "serve image refused"): failed})
    assert "yes (" not in text


def test_what_a_recipe_may_not_ask_for_says_why() -> None:
    refused = replace(SHOWN, why="experts stay whole")
    text = families_reference({("glm4v_moe", "", "qlora refused"): refused})
    assert "| refused: experts stay whole (1) |" in text
    assert "yes (" not in text
    failed = replace(refused, outcome="failed")
    assert "refused:" not in families_reference({("glm4v_moe", "", "qlora refused"): failed})


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
    # Once refused and now not, and the other way round.
    turned = [kept | {"what": "qlora refused", "why": "it was"}, kept | {"what": "dpo"}]
    results = tmp_path / "families.json"
    results.write_text(json.dumps({"cells": [kept, ran, *turned]}))
    (tmp_path / "test_cells.py").write_text(
        "def test_one(shows):\n    shows('gemma3', '', 'rows')\n"
        "def test_two(shows):\n    shows('gemma3', '', 'rows')\n    assert False\n"
        "def test_three(shows):\n    shows('gemma3', 'vision', 'lora')\n"
        "def test_four(shows):\n    shows('gemma3', '', 'qlora')\n"
        "def test_five(shows):\n    shows('gemma3', '', 'dpo refused', 'pairs')\n"
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
    assert "why" not in cells["", "qlora"]
    assert cells["", "dpo refused"]["why"] == "pairs"
    assert len(cells) == 5
