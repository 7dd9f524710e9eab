"""Adapters that vLLM would not apply as they were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.lora_ranks import rank_slot
from serving.adapter import read_adapter, tensor_names
from tests.serving.small import safetensors_bytes, small_base, small_recipe, small_run

FAMILY = families.get("qwen3_vl")


def test_modules_are_counted_by_tower(tmp_path: Path, home: Home) -> None:
    base = small_base(home, small_recipe(tmp_path))
    run = small_run(home, base, ["vision", "connector", "language"], rank_pattern={"qkv": 12})
    adapter = read_adapter(run.path, FAMILY)
    assert adapter.modules == {"vision": 8, "connector": 4, "language": 14}
    assert adapter.rank == 12


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("trainable_token_indices", {"embed_tokens": [7]}),
        ("init_lora_weights", "pissa"),
        ("alora_invocation_tokens", [1, 2]),
        ("layer_replication", [[0, 2], [1, 3]]),
        ("use_bdlora", {"nblocks": 2}),
        ("use_qalora", True),
    ],
)
def test_what_vllm_leaves_out_is_refused(tmp_path: Path, home: Home, key: str, value: Any) -> None:
    base = small_base(home, small_recipe(tmp_path))
    with pytest.raises(InputError, match=f"{key} is .*merge it"):
        read_adapter(small_run(home, base, ["language"], **{key: value}).path, FAMILY)


def test_a_run_without_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no adapter"):
        read_adapter(tmp_path, FAMILY)


def test_foreign_tensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    names = ["base_model.model.model.audio.proj.lora_A.weight", "base_model.model.lm_head.weight"]
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors_bytes(names))
    with pytest.raises(InputError) as caught:
        read_adapter(tmp_path, FAMILY)
    assert "model.audio.proj: is in no tower of Qwen3-VL" in str(caught.value)
    assert "lm_head.weight: is no LoRA matrix" in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="truncated"):
        tensor_names(path)


@pytest.mark.parametrize(
    ("rank", "slot"), [(1, 1), (2, 8), (8, 8), (33, 64), (257, 320), (512, 512), (513, None)]
)
def test_an_in_between_rank_takes_the_next_slot(rank: int, slot: int | None) -> None:
    assert rank_slot(rank) == slot
