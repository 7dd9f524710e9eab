"""A good recipe as text, what is changed in it, and what its loader says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lensmith.errors import InputError, Problem
from lensmith.recipe import Recipe, load_recipe

GOOD = """\
version: 1
family: qwen3_vl
base:
  path: models/base
data:
  source: forms/labels.jsonl
  answer: json
train:
  method: lora
  towers: {vision: adapt, connector: adapt, language: adapt}
  lora: {rank: 8, alpha: 16.0}
  launcher: ../accelerate/cpu.yaml
  learning_rate: 0.001
release:
  name: bank-forms
  intended_use: Reading forms.
gates: ../gates/default.yaml
"""


def load(folder: Path, text: str = GOOD, *settings: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, settings)


def problems(folder: Path, text: str, *settings: str) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        load(folder, text, *settings)
    return list(caught.value.problems)


def only_problem(folder: Path, text: str, *settings: str) -> str:
    (problem,) = problems(folder, text, *settings)
    return str(problem).replace(str(folder), "")


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)
