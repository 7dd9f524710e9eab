"""Trainings of every family on the same forms, prepared once a family; each has a home of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lensmith.base import pin_base
from lensmith.families.family import TOWERS
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.conftest import recipe_content
from tests.families.conftest import Checkpoint, towers_of
from tests.finetune.conftest import Training

# Given to every row: what objective dpo teaches against; the other objective reads past it.
WORSE = '{"account": "000000", "unsure": true}'
# A class that takes pixels in its own dtype alone shows in another than theirs.
DTYPES = {"deepseek_ocr2": "bfloat16"}


@dataclass(frozen=True)
class Start:
    """A family's checkpoint and prepared data in a home, to be copied, and what its recipes begin with."""

    checkpoint: Checkpoint
    forms: Path
    home: Path

    def training(self, root: Path, **settings: Any) -> Training:
        """A training in `root`, an empty folder, with `settings` of `train`."""
        shutil.copytree(self.home, root / "home")
        return self._open(root, settings)

    def prepare(self) -> Training:
        """Make the home."""
        return self._open(self.home.parent, {})

    def _open(self, root: Path, settings: dict[str, Any]) -> Training:
        from data_prep.prepare import prepare

        name = self.checkpoint.family.name
        content = recipe_content(self.checkpoint.root, self.forms)
        towers = {tower: "adapt" if tower in towers_of(name, "lora") else "freeze" for tower in TOWERS}
        content["family"] = name
        content["serve"]["max_new_tokens"] = 4
        own = {"towers": towers, "max_length": 1024, "dtype": DTYPES.get(name, "float32")}
        content["train"].update({**own, **settings})
        path = root / "recipe.yaml"
        path.write_text(yaml.safe_dump(content))
        recipe, home = load_recipe(path), Home(root / "home")
        return Training(path, recipe, home, pin_base(recipe, home), prepare(recipe, home).dataset)


def with_rejected(forms: Path, out: Path) -> Path:
    """A copy of handed-over forms in `out` whose good rows have a rejected answer too."""
    shutil.copytree(forms, out)
    rows: list[str] = []
    for line in (forms / "labels.jsonl").read_text().splitlines():
        try:
            rows.append(json.dumps({**json.loads(line), "rejected": WORSE}))
        except ValueError:
            # Handed over broken.
            rows.append(line)
    (out / "labels.jsonl").write_text("\n".join(rows))
    return out
