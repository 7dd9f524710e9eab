"""How many tokens a checkpoint has positions for: as vLLM's own function counts them."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from lensmith.context import COUNTED_IN, context_of, context_problems, length_problems
from lensmith.recipe import Recipe
from tests.serving.small import small_recipe

LINEAR = {"rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ({}, 262_144),
        ({"max_position_embeddings": 1024}, 1024),
        ({"max_position_embeddings": 1024, "rope_scaling": None}, 1024),
        ({"max_position_embeddings": 1024, "rope_parameters": {"rope_type": "default"}}, 1024),
        ({"max_position_embeddings": 1024, "rope_parameters": LINEAR}, 8192),
        ({"max_position_embeddings": 1024, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2048),
        ({"max_position_embeddings": 1024, "rope_scaling": {"type": "dynamic", "factor": None}}, 1024),
        ({"max_position_embeddings": 1024, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 1024),
        (
            {
                "max_position_embeddings": 1024,
                "rope_parameters": {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default"}},
            },
            8192,
        ),
    ],
)
def test_positions_of_a_config(text: dict[str, Any], most: int) -> None:
    assert context_of({"text_config": text}, families.get("qwen3_vl")) == most


def test_gemma_states_them_scaled() -> None:
    config = {"text_config": {"max_position_embeddings": 131_072, "rope_scaling": LINEAR}}
    assert context_of(config, families.get("gemma3")) == 131_072
    # As its published checkpoints, which leave the number out.
    assert context_of({"text_config": {"rope_scaling": LINEAR}}, families.get("gemma3")) == 131_072


def test_the_installed_engine_counts_in_the_same_types() -> None:
    """Read in its source: importing it takes half a minute."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "config/model.py").read_text()
    tree = ast.parse(source[source.index("def _get_and_verify_max_len(") :].partition("\n\n\n")[0])
    tuples = [
        tuple(each.value for each in node.elts if isinstance(each, ast.Constant))
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple)
    ]
    assert COUNTED_IN in tuples


def with_positions(recipe: Recipe, number: int) -> Recipe:
    path = recipe.base.path / "config.json"
    config = json.loads(path.read_bytes()) | {"text_config": {"max_position_embeddings": number}}
    path.write_text(json.dumps(config))
    return recipe


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    def told(tokens: int) -> list[str]:
        recipe = with_positions(small_recipe(tmp_path, max_model_len=tokens), 512)
        return [str(each) for each in context_problems(recipe, recipe.base.path)]

    assert told(513) == [
        "serve.max_model_len: 513 tokens, base has positions for 512 (max_position_embeddings)"
        " (lower it to 512 at most)"
    ]
    assert told(512) == []


def test_rows_of_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    recipe = with_positions(small_recipe(tmp_path, max_model_len=512), 512)

    def told(**train: int) -> list[str]:
        changed = recipe.model_copy(update={"train": recipe.train.model_copy(update=train)})
        return [str(each) for each in length_problems(changed, recipe.base.path)]

    assert told(max_length=513) == [
        "train.max_length: 513 tokens, base has positions for 512 (max_position_embeddings)"
        " (lower it to 512 at most)"
    ]
    assert told(max_length=512) == []
    # Each row of a pack counts its positions from its own first token.
    assert told(max_length=512, pack_length=8192) == []
