"""The configs that profiles hold for vLLM: every name that Molmo2's class there asks for is answered, and
DeepSeek-OCR-2's experts are in as many groups as transformers has them."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import Molmo2Config

from tests.families.conftest import Checkpoint

pytestmark = pytest.mark.slow

# vLLM's dataclass by the attribute whose names it copies.
ASKED = {"vit_config": "VitConfig", "adapter_config": "AdapterConfig", "text_config": "TextConfig"}


def asked_names(dataclass: str) -> list[str]:
    """The fields that vLLM reads off the config, from its source: importing it takes half a minute."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "model_executor/models/molmo2.py").read_text()
    (found,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == dataclass
    )
    return [
        each.target.id
        for each in found.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def values(config: dict[str, Any]) -> dict[str, list[Any]]:
    """What vLLM reads of a config.json, by the part it reads it from."""
    held = Molmo2Config.from_dict(config)
    return {part: [getattr(getattr(held, part), name) for name in asked_names(ASKED[part])] for part in ASKED}


@pytest.fixture(scope="module")
def molmo2(made: dict[str, Checkpoint]) -> Checkpoint:
    return made["molmo2"]


def test_every_name_is_answered_in_both_forms_of_the_file(molmo2: Checkpoint) -> None:
    write = molmo2.family.vllm_config
    assert write is not None
    published = json.loads((molmo2.root / "config.json").read_bytes())
    assert "vit_config" in published
    found = values(write(published))
    # As transformers saves it.
    assert values(write(molmo2.config)) == found
    # With the names of the published file that transformers moves or gives its own.
    text = dict(published["text_config"])
    text |= {"rope_theta": text.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
    text |= {"qkv_bias": text.pop("attention_bias"), "layer_norm_eps": text.pop("rms_norm_eps")}
    assert values(write(published | {"text_config": text})) == found


def test_without_it_vllm_would_not_start(molmo2: Checkpoint) -> None:
    with pytest.raises(AttributeError, match="vit_config"):
        values(json.loads((molmo2.root / "config.json").read_bytes()))


@pytest.mark.parametrize(
    ("stated", "groups"),
    [
        ({"topk_method": "greedy", "n_group": None, "topk_group": None}, [1, 1]),
        # transformers looks at no groups then.
        ({"topk_method": "greedy", "n_group": 4, "topk_group": 2}, [1, 1]),
        ({"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}, [4, 2]),
    ],
)
def test_groups_of_experts_are_numbers(
    made: dict[str, Checkpoint], stated: dict[str, Any], groups: list[int]
) -> None:
    deepseek = made["deepseek_ocr2"]
    write = deepseek.family.vllm_config
    assert write is not None
    config = deepseek.config | {"text_config": deepseek.config["text_config"] | stated}
    language = write(config)["language_config"]
    assert [language["n_group"], language["topk_group"]] == groups


def test_the_dtype_has_two_names(made: dict[str, Checkpoint]) -> None:
    """Older versions of transformers wrote torch_dtype."""
    deepseek = made["deepseek_ocr2"]
    write = deepseek.family.vllm_config
    assert write is not None
    older = dict(deepseek.config)
    older["torch_dtype"] = older.pop("dtype")
    assert write(older) == write(deepseek.config)
    assert write(older)["dtype"] == "float32"
