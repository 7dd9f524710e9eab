"""Shares of the splits within each source or value of a field, through prepare."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.prepare import Prepared, prepare
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.data_prep.folder import Folder
from tests.data_prep.test_history import two_sources
from tests.data_prep.test_prepare import places

SPLIT = {"validation": 0.1, "held_out": 0.3, "seed": 17}
KINDS = {"common": 40, "rare": 20, "": 10}


def stratified(by: str, **more: Any) -> dict[str, Any]:
    return {"split": SPLIT | {"stratify": by}, "similar": "ignore", **more}


def fill(folder: Folder, first: int = 0) -> None:
    """Groups of two rows by kind; those of kind "" lack the field."""
    for kind, groups in KINDS.items():
        for number in range(first, first + groups):
            for each in range(2):
                answer = json.dumps({"kind": kind} if kind else {"other": 1})
                name = f"{kind or 'none'}-{number}"
                folder.add(folder.row(f"{name}-{each}", name, answer))


def shares(prepared: Prepared, home: Home) -> Counter[tuple[str, str]]:
    """Groups by kind and split."""
    groups = {row.rpartition("-")[0]: split for row, split in places(prepared, home).items()}
    return Counter((group.partition("-")[0], split) for group, split in groups.items())


@pytest.mark.parametrize("by", ["kind", "none"])
def test_every_value_of_a_field_has_its_share(folder: Folder, home: Home, by: str) -> None:
    fill(folder)
    found = shares(prepare(folder.recipe(**stratified(by)), home), home)
    expected = {
        (kind or "none", split): round(groups * share)
        for kind, groups in KINDS.items()
        for split, share in {"held_out": 0.3, "validation": 0.1, "train": 0.6}.items()
    }
    assert (found == expected) == (by == "kind")


def test_added_rows_move_none(folder: Folder, home: Home) -> None:
    fill(folder)
    first = prepare(folder.recipe(**stratified("kind")), home)
    before = places(first, home)
    fill(folder, first=100)
    second = prepare(folder.recipe(**stratified("kind", previous=first.dataset.id)), home)
    assert before.items() <= places(second, home).items()
    found = shares(second, home)
    assert [found[kind, "held_out"] for kind in ("common", "rare", "none")] == [24, 12, 6]
    # The mutant: what is drawn without the first dataset is another split.
    alone = prepare(folder.recipe(**stratified("kind")), home)
    assert not before.items() <= places(alone, home).items()


def test_every_source_has_its_share(folder: Folder, home: Home, tmp_path: Path) -> None:
    path = two_sources(folder, tmp_path)
    content = json.loads(path.read_text())
    content["data"] |= stratified("source")
    path.write_text(json.dumps(content))
    prepared = prepare(load_recipe(path), home)
    found = Counter((row.partition("-")[0], split) for row, split in places(prepared, home).items())
    assert found == {
        ("good", "held_out"): 9, ("good", "validation"): 3, ("good", "train"): 18,
        ("more", "held_out"): 12, ("more", "validation"): 4, ("more", "train"): 24,
    }  # fmt: skip
    rule = prepared.held_out.body["split"]
    assert rule["stratify"] == "source"
    assert rule["rule"].startswith("by source or field")


def test_text_has_no_fields(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"recipe|data") as error:
        folder.recipe(**stratified("kind", answer="text"))
    assert "split.stratify names a field" in str(error.value)
    assert folder.recipe(**stratified("source", answer="text")).data.split.stratify == "source"
