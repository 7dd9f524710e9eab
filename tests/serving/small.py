"""Artifacts in a real checkpoint's file forms, without weights and torch: what deriving a profile reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lensmith import families
from lensmith.artifact import Artifact
from lensmith.base import pin_base
from lensmith.families.family import Tower
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.recipe import Recipe, load_recipe
from tests.conftest import FORM_SCHEMA, recipe_content

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "dtype": "bfloat16",
    "image_token_id": 9,
    "vision_config": {"depth": 2, "deepstack_visual_indexes": [0]},
    "text_config": {"num_hidden_layers": 2},
}
PROCESSOR = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 4096, "longest_edge": 262144}}


def safetensors_bytes(names: Sequence[str]) -> bytes:
    """A safetensors file whose tensors have no elements."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({"__metadata__": {"format": "pt"}, **dict.fromkeys(names, entry)}).encode()
    return len(header).to_bytes(8, "little") + header


def write_checkpoint(folder: Path) -> Path:
    """The files of a Qwen3-VL checkpoint that profiles read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(safetensors_bytes(["lm_head.weight"]))
    return folder


def small_recipe(folder: Path, **serve: Any) -> Recipe:
    """A recipe on such a checkpoint; keywords set keys of its `serve` section."""
    content = recipe_content(write_checkpoint(folder / "base"), folder / "forms")
    content["data"]["answer_schema"] = {"inline": FORM_SCHEMA}
    content["serve"].update(serve)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))
    return load_recipe(path)


def small_base(home: Home, recipe: Recipe) -> Artifact:
    """The pinned base."""
    return pin_base(recipe, home)


def small_run(home: Home, base: Artifact, towers: Sequence[Tower], **config: Any) -> Artifact:
    """A run with an adapter of rank 4 on `towers`; keywords go into PEFT's config."""
    family = families.get("qwen3_vl")
    modules = [name for tower in towers for name in family.expected_linears(CONFIG, tower)]
    names = [f"base_model.model.{name}.{part}.weight" for name in modules for part in ("lora_A", "lora_B")]
    with home.create("run", digest_json([base.id, list(towers), config]), {"base": base}) as draft:
        stated = {"r": 4, "lora_alpha": 8, "bias": "none", "use_dora": False, **config}
        (draft.path / "adapter_config.json").write_text(json.dumps(stated))
        (draft.path / "adapter_model.safetensors").write_bytes(safetensors_bytes(names))
        draft.body.update(method="lora", template=base.body["template"])
    return draft.artifact


def small_model(home: Home, base: Artifact, run: Artifact) -> Artifact:
    """A model that says it was merged from base and run."""
    with home.create("model", digest_json([base.id, run.id]), {"base": base, "run": run}) as draft:
        write_checkpoint(draft.path)
        draft.body.update(dtype="bfloat16", template=base.body["template"])
    return draft.artifact
