"""The committed reference is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from write_reference import REFERENCES, recipe_reference

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", REFERENCES)
def test_committed_reference_is_up_to_date(name: str) -> None:
    committed = (ROOT / "docs/reference" / name).read_text()
    assert committed == REFERENCES[name](), "run: .venv/bin/python scripts/write_reference.py"


def test_the_recipe_reference_gives_kind_bounds_default_and_meaning() -> None:
    text = recipe_reference()
    assert "| `rank` | integer ≥ 1 | `16` | rank of every adapted linear |" in text
    assert "| `max_rank` | integer ≥ 1, ≤ 512 |  | largest rank among them" in text
    assert "| `learning_rate` | number > 0 |  | peak learning rate |" in text
    assert "| `method` | `lora`, `qlora`, `full` |  |" in text
    assert "## `data.split`" in text
