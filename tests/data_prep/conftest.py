"""Folders to prepare."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.prepare import Prepared, prepare
from lensmith.home import Home
from lensmith.recipe import Recipe, load_recipe
from tests.conftest import recipe_content
from tests.data_prep.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder to fill."""
    return Folder(tmp_path / "handed-over")


@dataclass(frozen=True)
class BankForms:
    """The generated forms, what was planted in them, and what preparing them gave."""

    planted: list[Any]
    recipe: Recipe
    home: Home
    prepared: Prepared


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> BankForms:
    """80 generated forms with planted flaws, prepared."""
    from make_bank_forms import make_bank_forms

    root = tmp_path_factory.mktemp("prepared")
    planted = make_bank_forms(root / "forms", forms=80, customers=20, seed=17)
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe_content(tiny_base, root / "forms")))
    recipe = load_recipe(root / "recipe.yaml")
    home = Home(root / "home")
    return BankForms(planted, recipe, home, prepare(recipe, home))


def line_of(place: str) -> int:
    """The line that "labels.jsonl:17" names."""
    name, _, line = place.rpartition(":")
    assert name == "labels.jsonl"
    return int(line)


def refused(prepared: Prepared) -> dict[int, set[str]]:
    """Reason codes by line, as refused.jsonl states them."""
    codes: dict[int, set[str]] = defaultdict(set)
    for text in (prepared.intake.path / "refused.jsonl").read_text().splitlines():
        record = json.loads(text)
        codes[line_of(record["place"])].add(record["code"])
    return dict(codes)
