"""Adapters from outside whose files say a quantised base, or make no sense: refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.merging.adapter_config import read_config
from finetune.merging.checkpoint import open_checkpoint
from finetune.merging.outside import rewrite_adapter
from finetune.merging.trained_on import quantized_signs
from lensmith import families
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError, IntegrityError
from tests.finetune.test_outside_adapters import (
    make_adapter,
    make_base,
    save,
)

ARGUMENTS = {"quant_bits": None, "quant_method": None, "load_in_4bit": False, "torch_dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        ({"base_model_name_or_path": "unsloth/Qwen3-VL-8B-Instruct-unsloth-bnb-4bit"}, {}, "its base was"),
        ({"base_model_name_or_path": "/models/Qwen3-VL-8B-Instruct-AWQ/"}, {}, "(AWQ)"),
        ({"base_model_name_or_path": "models/qwen3-vl-32b-int4"}, {}, "(int4)"),
        ({}, {"args.json": json.dumps(ARGUMENTS | {"quant_bits": 4})}, "quant_bits was 4"),
        ({}, {"args.json": json.dumps(ARGUMENTS | {"quant_method": "bnb"})}, "quant_method was bnb"),
        ({}, {"training_args.yaml": "lora_rank: 8\nquantization_bit: 4\n"}, "says quantization_bit: 4"),
        ({}, {"llamaboard_config.yaml": "top.quantization_bit: '8'\n"}, "says quantization_bit: '8"),
        ({}, {"README.md": "```yaml\nadapter: qlora\nload_in_4bit: true\n```"}, "says load_in_4bit: true"),
        ({}, {"README.md": "- load_in_8bit: False\n- load_in_4bit: True\n"}, "says load_in_4bit: True"),
    ],
)
def test_an_adapter_of_a_quantised_base_is_not_added_to_another(
    tmp_path: Path, config: dict[str, Any], files: dict[str, str], words: str
) -> None:
    base = make_base(tmp_path / "base", "qwen3_vl")
    source = save(tmp_path / "saved", make_adapter("qwen3_vl"), config)
    for name, content in files.items():
        (source / name).write_text(content)
    given = (open_checkpoint(base), families.get("qwen3_vl"))
    with pytest.raises(InputError) as caught:
        rewrite_adapter(source, tmp_path / "out", *given)
    (problem,) = caught.value.problems
    assert "trained on a quantised base" in problem.what
    assert words in problem.what
    assert not (tmp_path / "out").exists()
    # Who says that the base is what it was worth is taken at his word.
    rewrite_adapter(source, tmp_path / "out", *given, as_trained=True)
    assert (tmp_path / "out" / ADAPTER_WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"base_model_name_or_path": "Qwen/Qwen3-VL-4B-Instruct"}, {}),
        ({"base_model_name_or_path": "/data/print4/bits/GLM-4.6V-Flash"}, {}),
        ({}, {"args.json": json.dumps(ARGUMENTS)}),
        ({}, {"args.json": "{"}),
        ({}, {"training_args.yaml": "quantization_bit: null\nquantization_method: bnb\n"}),
        ({}, {"README.md": "- load_in_8bit: False\n- load_in_4bit: False\n"}),
    ],
)
def test_no_sign_where_nothing_was_quantised(
    tmp_path: Path, config: dict[str, Any], files: dict[str, str]
) -> None:
    source = save(tmp_path / "saved", make_adapter("qwen3_vl"), config)
    for name, content in files.items():
        (source / name).write_text(content)
    assert list(quantized_signs(source, config)) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 0}, "r: is 0, not a whole number above 0"),
        ({"r": "2"}, 'r: is "2", not a whole'),
        ({"lora_alpha": None}, "lora_alpha: is null, not a number above 0"),
        ({"lora_alpha": float("nan")}, "lora_alpha: is NaN"),
        ({"rank_pattern": {"q_proj": 2.5}}, "rank_pattern q_proj: is 2.5"),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern (: is no regular expression"),
        ({"alpha_pattern": [2]}, "alpha_pattern: is [2], dict is expected"),
        ({"modules_to_save": "lm_head"}, "list is expected"),
        ({"modules_to_save": [7]}, "not a list of names"),
        ({"trainable_token_indices": [7]}, "trainable_token_indices: is [7], dict is expected"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    source = save(tmp_path / "saved", make_adapter("qwen3_vl"), config)
    with pytest.raises(InputError) as caught:
        read_config(source, experts=False)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe{}"])
def test_a_config_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    source = save(tmp_path / "saved", make_adapter("qwen3_vl"), {})
    (source / ADAPTER_CONFIG).write_bytes(content)
    with pytest.raises(InputError, match="is no JSON"):
        read_config(source, experts=False)


def test_a_truncated_adapter_is_told(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen3_vl")
    source = save(tmp_path / "saved", make_adapter("qwen3_vl"), {})
    path = source / ADAPTER_WEIGHTS
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(IntegrityError, match="is damaged"):
        rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), families.get("qwen3_vl"))
