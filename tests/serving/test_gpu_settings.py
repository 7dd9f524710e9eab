"""Sharing a model out over GPUs: what each shipped recipe runs with, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.serve_settings import Serve
from lensmith.units import GIB
from serving.build import EngineBuild
from serving.gpu_settings import cuda_settings, gpu_problems
from serving.hardware import Hardware
from serving.profile import make_profile
from tests.serving.exam import CPU, CPU_BUILD
from tests.serving.shipped import arguments, gpus, profiles, written
from tests.serving.small import CONFIG, small_base, small_recipe

GOLDEN = Path(__file__).parent / "golden"
GPU_BUILD = EngineBuild(version="0.33.0", device="cuda")
# Heads as the published Qwen3-VL-32B and GLM-4.6V state them.
QWEN_32B = {
    "text_config": {"num_attention_heads": 64, "num_key_value_heads": 8},
    "vision_config": {"num_heads": 16},
}
GLM = {
    "text_config": {"num_attention_heads": 96, "num_key_value_heads": 8},
    "vision_config": {"num_heads": 12},
}


def problems(
    family: str, config: Mapping[str, Any], kind: str, count: int, weights: int = 0, **serve: Any
) -> str:
    settings = Serve.model_validate(serve)
    found = gpu_problems(settings, families.get(family), config, gpus(kind, count), weights)
    return "\n".join(map(str, found))


def test_every_shipped_recipe_on_its_hardware() -> None:
    commands = written({name: arguments(each) for name, each in profiles().items()})
    assert commands == (GOLDEN / "commands.txt").read_text()


def test_a_proof_runs_on_the_same_shares_and_in_the_same_digits() -> None:
    apart = {"--enable-prefix-caching", "--no-enable-prefix-caching"}
    for name, profile in profiles().items():
        served, proven = arguments(profile), arguments(profile, proof=True)
        values = {"--mm-processor-cache-gb"} | ({"--reasoning-parser"} if "parsers" in name else set())
        for word in values:
            for words in (served, proven):
                if word in words:
                    del words[(at := words.index(word)) : at + 2]
        assert [w for w in served if w not in apart] == [w for w in proven if w not in apart]


def test_what_is_left_open_follows_the_engine_s_recipes() -> None:
    def settled(family: str, **serve: Any) -> tuple[str, bool]:
        cuda = cuda_settings(Serve.model_validate(serve), families.get(family), gpus("h100-80", 8))
        return cuda.encoder_parallel, cuda.expert_parallel

    assert settled("qwen3_vl") == ("weights", False)
    assert settled("qwen3_vl", tensor_parallel=2) == ("data", False)
    assert settled("qwen3_vl_moe", tensor_parallel=8) == ("data", False)
    assert settled("glm4v_moe", tensor_parallel=4) == ("data", True)
    assert settled("glm4v_moe", data_parallel=4) == ("weights", True)
    assert settled("glm4v_moe") == ("weights", False)
    assert settled("gemma3", tensor_parallel=4) == ("weights", False)
    assert settled("deepseek_ocr2", tensor_parallel=2) == ("weights", False)


def test_heads_that_cannot_be_shared_out_are_all_named() -> None:
    assert problems("qwen3_vl", QWEN_32B, "h100-80", 8, tensor_parallel=8) == ""
    found = problems("qwen3_vl", QWEN_32B, "h100-80", 6, tensor_parallel=6)
    assert "64 attention heads cannot be shared out over 6 GPUs" in found
    assert "8 key-value heads can be neither shared out over 6 GPUs nor copied" in found
    # The vision tower is whole on each GPU, so its 16 heads do not matter.
    assert "vision tower" not in found
    cut = problems("glm4v_moe", GLM, "h100-80", 8, tensor_parallel=8, encoder_parallel="weights")
    assert "12 heads of the vision tower cannot be shared out over 8 GPUs" in cut
    assert "serve.encoder_parallel: data" in cut
    assert problems("glm4v_moe", GLM, "h100-80", 8, tensor_parallel=8) == ""
    gemma = {"vision_config": {"num_attention_heads": 16}}
    assert "16 heads of the vision tower" in problems("gemma3", gemma, "h100-80", 3, tensor_parallel=3)


@pytest.mark.parametrize("key", ["quantization", "kv_cache_dtype"])
def test_fp8_needs_a_gpu_that_computes_in_it(key: str) -> None:
    refused = problems("qwen3_vl", {}, "a100-80", 1, **{key: "fp8"})
    assert "a100-80 does not compute in FP8" in refused
    assert f"serve.{key}" in refused
    for kind in ("l4-24", "h100-80", "b200-180"):
        assert problems("qwen3_vl", {}, kind, 1, **{key: "fp8"}) == ""


def test_bfloat16_needs_a_gpu_that_computes_in_it() -> None:
    assert "t4-16 does not compute in bfloat16" in problems("qwen3_vl", {}, "t4-16", 1)
    assert problems("qwen3_vl", {}, "t4-16", 1, dtype="float32") == ""


def test_copies_need_gpus_of_their_own_and_experts_may_be_shared_among_them() -> None:
    assert "8 GPUs are asked for, this machine has 4" in problems(
        "qwen3_vl", {}, "h100-80", 4, tensor_parallel=2, data_parallel=4
    )
    weights = 212 * GIB
    assert "212.0 GiB on each GPU" in problems("qwen3_vl_moe", {}, "h100-80", 4, weights, data_parallel=4)
    # What is not known to be too much is not refused: the experts lie on one GPU each.
    assert problems("qwen3_vl_moe", {}, "h100-80", 4, weights, data_parallel=4, expert_parallel=True) == ""


def test_everything_that_a_machine_cannot_do_is_said_together(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(
        tmp_path, dtype="bfloat16", tensor_parallel=3, quantization="fp8", max_new_tokens=600
    )
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], "num_attention_heads": 8}}
    (recipe.base.path / "config.json").write_text(json.dumps(config))
    base = small_base(home, recipe)
    machine = Hardware(cores=4, memory=64 * GIB, gpus=gpus("a100-40", 2))
    with pytest.raises(InputError) as caught:
        make_profile(recipe, base, base, machine, GPU_BUILD)
    for words in ("3 GPUs are asked for", "8 attention heads", "does not compute in FP8", "do not fit 512"):
        assert words in str(caught.value)


def test_fp8_on_a_cpu_engine_is_refused(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, dtype="bfloat16", quantization="fp8", kv_cache_dtype="fp8")
    base = small_base(home, recipe)
    with pytest.raises(InputError, match="CPU engine does not compute in FP8") as caught:
        make_profile(recipe, base, base, CPU, CPU_BUILD)
    assert len(caught.value.problems) == 2
