"""What a recipe asks of vLLM: what it cannot do for a family is refused when the recipe is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lensmith.errors import InputError
from lensmith.recipe import load_recipe
from tests.conftest import write_recipe

TOWERS_OF_ALL = {"vision": "freeze", "connector": "freeze", "language": "adapt"}


@pytest.mark.parametrize(
    ("family", "serve", "words"),
    [
        ("gemma3", {"tools": True}, "serve.tools: Gemma 3 calls no tools"),
        ("deepseek_ocr2", {"thinking": True}, "vLLM knows no thoughts of DeepSeek-OCR-2"),
        ("qwen3_vl", {"expert_parallel": True, "tensor_parallel": 2}, "Qwen3-VL has no routed experts"),
        (
            "deepseek_ocr2",
            {"expert_parallel": True, "tensor_parallel": 2},
            "is not offered so by vLLM's recipe",
        ),
        ("glm4v_moe", {"expert_parallel": True}, "one GPU has nothing to share"),
        ("gemma3", {"encoder_parallel": "data", "tensor_parallel": 2}, "cut the vision tower of Gemma 3"),
        ("qwen3_vl", {"encoder_parallel": "data"}, "serve.encoder_parallel: one GPU has nothing to share"),
        ("qwen3_vl", {"quantization": "fp8", "dtype": "float32"}, "fp8 goes with dtype bfloat16"),
        ("qwen3_vl", {"kv_cache_dtype": "fp8", "dtype": "float32"}, "serve.kv_cache_dtype: fp8 goes with"),
        ("glm4v", {"max_videos": 2}, "serve.max_videos: vLLM takes at most 1 of GLM-4.6V-Flash in a request"),
        ("qwen3_vl", {"expert_parallel": "yes"}, "auto, true or false is expected, not 'yes'"),
    ],
)
def test_what_vllm_cannot_do_for_a_family_is_said_before_training(
    tmp_path: Path, family: str, serve: dict[str, object], words: str
) -> None:
    settings = {"family": family, "serve": serve, "train__towers": TOWERS_OF_ALL}
    with pytest.raises(InputError) as error:
        load_recipe(write_recipe(tmp_path / "recipe.yaml", tmp_path, tmp_path, **settings))
    assert words in str(error.value)


def test_all_that_serving_cannot_do_is_said_together(tmp_path: Path) -> None:
    serve = {
        "tools": True,
        "thinking": True,
        "expert_parallel": True,
        "quantization": "fp8",
        "dtype": "float32",
    }
    settings = {"family": "molmo2", "serve": serve, "train__towers": TOWERS_OF_ALL}
    with pytest.raises(InputError) as error:
        load_recipe(write_recipe(tmp_path / "recipe.yaml", tmp_path, tmp_path, **settings))
    for key in ("tools", "thinking", "expert_parallel", "quantization"):
        assert f"serve.{key}:" in str(error.value)


def test_thoughts_that_were_not_taught_are_not_taken_out(tmp_path: Path) -> None:
    settings = {"serve": {"thinking": True}, "train__thinking": "drop"}
    with pytest.raises(InputError, match="teaches answers without thoughts"):
        load_recipe(write_recipe(tmp_path / "recipe.yaml", tmp_path, tmp_path, **settings))
