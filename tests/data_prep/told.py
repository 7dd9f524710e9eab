"""`lensmith prepare --json` on a recipe's data section, and what it told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lensmith.cli.main import main
from tests.conftest import recipe_content


@dataclass(frozen=True)
class Told:
    """code: the program's exit code. body: what it printed as JSON, {} where it failed. said: its stderr."""

    code: int
    body: dict[str, Any]
    said: str

    @property
    def rows(self) -> int:
        """Rows that were taken."""
        return sum(self.body["rows"].values())

    def refused(self) -> dict[str, list[dict[str, Any]]]:
        """The records of refused.jsonl by the row's id, its place where it has none."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in (Path(self.body["intake_path"]) / "refused.jsonl").read_text().splitlines():
            record = json.loads(line)
            found.setdefault(record["row"] or record["place"], []).append(record)
        return found


def prepare_told(root: Path, capsys: pytest.CaptureFixture[str], **data: Any) -> Told:
    """Prepare with `data` laid over a small recipe's data section; `root` gets recipe and home."""
    content = recipe_content(root / "no-base", root)
    content["data"] |= {"max_bad": 0.9, "similar": "ignore", "answer": "text"} | data
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    code = main(["prepare", str(recipe), "--home", str(root / "home"), "--json"])
    out, said = capsys.readouterr()
    return Told(code, json.loads(out) if code == 0 else {}, said)
