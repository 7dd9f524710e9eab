"""A lively base, a run on it and their merged model: made once, shared by the tests of merge and proof."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save_file

from finetune.merge import merge
from lensmith.artifact import Artifact
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import Recipe, load_recipe
from tests.artifacts import make_held_out, make_lively, make_run
from tests.conftest import recipe_content


@dataclass(frozen=True)
class Walk:
    """Everything that stands before the merge proof."""

    recipe: Recipe
    home: Home
    base: Artifact
    run: Artifact
    model: Artifact
    held_out: Artifact


def recipe_for(base: Path, forms: Path, path: Path, **settings: Any) -> Recipe:
    """A recipe on `base`, written beside `path`; `settings` replace whole sections."""
    content = recipe_content(base, forms) | settings
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path)


def lively_base(tiny: Path, target: Path, change: Callable[[Path], None] | None = None) -> Path:
    """A copy of the tiny base with weights that matter, changed further by `change`."""
    shutil.copytree(tiny, target)
    make_lively(target)
    if change:
        change(target)
    return target


def as_bfloat16(base: Path) -> None:
    """Store the checkpoint's weights in bfloat16."""
    path = base / "model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    config = base / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'))


def as_shards(base: Path) -> None:
    """Store the checkpoint's weights in several files with an index."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="300KB")
    assert len(list(base.glob("model-*.safetensors"))) > 2


def as_tied(base: Path) -> None:
    """Tie the output head to the embeddings: one tensor on disk, and the config says so."""
    path = base / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    config = base / "config.json"
    config.write_text(
        config.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true')
    )


def walk(
    root: Path, tiny: Path, forms: Path, change: Callable[[Path], None] | None = None, **adapter: Any
) -> Walk:
    """Base, run and merged model in a home of their own under `root`; `adapter` goes to `make_run`."""
    base_path = lively_base(tiny, root / "base", change)
    recipe = recipe_for(base_path, forms, root / "recipe.yaml")
    home = Home(root / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, **adapter)
    return Walk(recipe, home, base, run, merge(recipe, home, base, run), make_held_out(home, forms, 12))


def planted(whole: Walk, name: str, fault: Callable[[Path], None]) -> Walk:
    """The same walk with another model artifact: a copy of the merged one with `fault` planted in it."""
    with whole.home.create("model", f"{name:0>24}", {"base": whole.base, "run": whole.run}) as draft:
        for path in whole.model.path.iterdir():
            if path.name not in ("manifest.json", "record.json"):
                shutil.copyfile(path, draft.path / path.name)
        fault(draft.path)
        draft.body.update(whole.model.body)
    return replace(whole, model=draft.artifact)
