"""What benchmarks/predict.py asks and whom: an untaught checkpoint, an exam and its profile in a home.

The model is Qwen3-VL's real classes with random weights, scaled so that its answers hang on the picture.
Untaught it would talk up to the limit: the row of the output layer that ends an answer is drawn out until
answers end, some soon, some late: those of "large" at 67 tokens in the mean, those of the demo's forms at
about 41. Every length is told with the result. What is won grows with the model: one row at a time reads all
weights for each token. 103 million parameters ("large") are still far below the smallest that is released.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lensmith.artifact import Artifact
from lensmith.home import Home
from lensmith.images import decode_stored, pixel_digest
from lensmith.recipe import Recipe, load_recipe
from lensmith.row_file import Row
from lensmith.sample import Image

ROOT = Path(__file__).resolve().parents[1]
# Tokens of an answer at most, and answers asked for at once (`serve.concurrency`).
ANSWERS, CONCURRENCY = 96, 64
# By how much the row that ends an answer is drawn out.
_ENDS = 3.0
_EMBEDDED, _MERGED = 0.3, 3.0
# The arguments of tiny_base's Size: text hidden, feed-forward, layers, heads, of them for keys, head size;
# the same of the vision tower, and its layers whose features the text's first layers get.
CASES: dict[str, tuple[Any, ...]] = {
    "small": (64, 128, 2, 2, 1, 32, 64, 128, 2, 2, (0,)),
    "middle": (384, 1024, 8, 6, 3, 64, 256, 512, 4, 4, (1, 2)),
    "large": (768, 2048, 12, 12, 6, 64, 384, 1024, 6, 6, (1, 3, 5)),
}


@dataclass(frozen=True)
class Case:
    """A folder that `make_case` filled."""

    checkpoint: Path
    recipe: Recipe
    home: Home
    held_out: Artifact
    profile: Artifact


def make_case(name: str, folder: Path, rows: int) -> int:
    """Fill `folder`; the model's parameters."""
    parameters = _write_model(folder / "model", CASES[name])
    content = {
        "version": 1,
        "family": "qwen3_vl",
        "base": {"path": str(folder / "model")},
        "data": {"source": str(folder / "labels.jsonl"), "answer": "text"},
        "train": {
            "method": "lora",
            "towers": dict.fromkeys(("vision", "connector", "language"), "adapt"),
            "launcher": str(ROOT / "recipes/accelerate/cpu.yaml"),
            "learning_rate": 1e-3,
        },
        "serve": {
            "dtype": "float32",
            "max_model_len": 512,
            "max_new_tokens": ANSWERS,
            "kv_cache_gib": 2.0,
            "concurrency": CONCURRENCY,
        },
        "release": {"name": "predict", "intended_use": "A benchmark."},
        "gates": str(ROOT / "recipes/gates/default.yaml"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    _write_exam(Home(folder / "home"), rows)
    return parameters


def open_case(folder: Path) -> Case:
    """What `make_case` left there; base and profile are made where they are not there yet."""
    from lensmith.base import pin_base
    from serving.hardware import read_hardware
    from serving.profile import derive_profile

    recipe, home = load_recipe(folder / "recipe.yaml"), Home(folder / "home")
    base = pin_base(recipe, home)
    profile = derive_profile(recipe, home, base, base, read_hardware())
    return Case(folder / "model", recipe, home, home.all("held_out")[0], profile)


def _write_model(folder: Path, size: tuple[Any, ...]) -> int:
    import torch
    from tiny_base import checkpoint

    processor = checkpoint.make_processor()
    model = checkpoint.make_model(checkpoint.make_config(checkpoint.Size(*size), processor), seed=0)
    # transformers does not say of which class the vision tower is.
    vision: Any = model.model.visual
    with torch.no_grad():
        embedded: Any = model.get_input_embeddings().weight
        embedded.mul_(_EMBEDDED / embedded.std())
        for merger in (vision.merger, *vision.deepstack_merger_list):
            merger.linear_fc2.weight.mul_(_MERGED)
        model.lm_head.weight[processor.tokenizer.eos_token_id] *= _ENDS
    checkpoint.save(folder, model, processor)
    return sum(each.numel() for each in model.parameters())


def _write_exam(home: Home, number: int) -> None:
    """A held-out set of `number` rows: pictures of 4 to 169 image tokens, one to a row."""
    from benchmarks.training import make_rows
    from lensmith.dataset import HELD_OUT_FILE
    from lensmith.files import digest_json
    from lensmith.row_file import write_rows

    with home.create("held_out", digest_json(["predict", number]), {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, map(_digested, make_rows(number)))
        draft.body.update(rows=number)


def _digested(row: Row) -> Row:
    """The row with its picture's digest and size, which a file of rows asks for."""
    picture = decode_stored(row.images[0])
    question, answer = row.sample.messages
    shown = Image(row.sample.images[0].path, pixel_digest(picture), picture.size)
    asked = replace(question, parts=(shown, *question.parts[1:]))
    return replace(row, sample=replace(row.sample, messages=(asked, answer)))
