"""The card as the hub reads it, and as `datasets` opens the dataset by it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.card import CARD, write_card
from data_prep.figures.origin_counts import OriginCounts
from lensmith.dataset import read_split
from lensmith.sample import Origin
from tests.data_prep.conftest import BankForms

HOSTILE = "a | b\n---\nlicense: mit\n# c <script>alert(1)</script> [d](javascript:e) `f`"


def front_matter(text: str) -> dict[str, Any]:
    start, matter, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(matter)


def card(forms: BankForms, folder: Path, origins: list[Origin]) -> str:
    counts = OriginCounts()
    for origin in origins:
        counts.add(origin)
    body = copy.deepcopy(forms.prepared.dataset.body)
    body["origins"] = counts.summary()
    write_card(folder, body)
    return (folder / CARD).read_text()


def test_what_programs_read(forms: BankForms) -> None:
    text = (forms.prepared.dataset.path / CARD).read_text()
    facts = front_matter(text)
    assert facts["task_categories"] == ["image-text-to-text"]
    assert facts["size_categories"] == ["n<1K"]
    assert "license" not in facts
    assert "language" not in facts
    assert "No row states its licence, consent or source." in text
    assert "is told by the intake made with it" in text


@pytest.mark.slow
def test_datasets_opens_it(forms: BankForms, tmp_path: Path) -> None:
    import datasets

    path, cache = str(forms.prepared.dataset.path), str(tmp_path)
    rows = datasets.load_dataset(path, cache_dir=cache)
    images = datasets.load_dataset(path, "images", cache_dir=cache)
    for split in ("train", "validation"):
        mine = read_split(forms.prepared.dataset, split)
        assert rows[split]["id"] == [row.sample.id for row in mine]
        shown = images[split][rows[split][0]["images"][0]]
        assert shown["image"].size == (shown["width"], shown["height"])
        assert shown["digest"] == mine[0].sample.images[0].digest


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["CC-BY-4.0"] * 3, {"license": "cc-by-4.0"}),
        (["CC-BY-4.0", "ODbL-1.0"], {"license": ["cc-by-4.0", "odbl"]}),
        (["CC-BY-4.0", "our contract"], {"license": "other", "license_name": "see-below"}),
        (["CC-BY-4.0", ""], {}),
        ([f"contract {number}" for number in range(30)], {}),
    ],
)
def test_the_licence_is_what_every_row_states(
    forms: BankForms, tmp_path: Path, licences: list[str], expected: dict[str, Any]
) -> None:
    facts = front_matter(card(forms, tmp_path, [Origin(licence=licence) for licence in licences]))
    assert {key: value for key, value in facts.items() if key.startswith("license")} == expected


def test_rows_that_state_nothing_are_counted(forms: BankForms, tmp_path: Path) -> None:
    text = card(forms, tmp_path, [Origin("branch", "CC0-1.0"), Origin("branch"), Origin()])
    assert "| licence | CC0-1.0 | 1 |" in text
    assert "| licence | something else, or nothing | 2 |" in text
    assert "| source | branch | 2 |" in text
    assert "| consent | nothing | 3 |" in text


def test_what_a_row_says_stays_in_its_cell(forms: BankForms, tmp_path: Path) -> None:
    text = card(forms, tmp_path, [Origin(source=HOSTILE, licence=HOSTILE)] * 2)
    assert front_matter(text)["license"] == "other"
    (line,) = [each for each in text.splitlines() if each.startswith("| source |")]
    assert "<script" not in text
    assert r"a \| b --- license: mit \# c" in line
    assert r"\[d\](javascript:e)" in line
    assert json.dumps(line)
