"""The sides of the merge benchmark do the same work: what they write is equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import merge, merge_case, merge_proof

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

pytestmark = pytest.mark.slow
SMALL = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 192,
    "moe_intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
SEEING = {"hidden_size": 64, "depth": 3, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": 128}


def small(config: Callable[[], PreTrainedConfig]) -> Callable[[], PreTrainedConfig]:
    """The same model, thin."""

    def make() -> PreTrainedConfig:
        content = config().to_dict()
        text = content["text_config"] | SMALL
        text |= {name: 4 for name in ("num_experts", "n_routed_experts") if name in text}
        text |= {"num_hidden_layers": 2}
        for name in ("layer_types", "mlp_layer_types", "rope_parameters"):
            text.pop(name, None)
        seeing = content["vision_config"] | SEEING
        seeing |= {"deepstack_visual_indexes": [1]} if "deepstack_visual_indexes" in seeing else {}
        return type(config()).from_dict(content | {"text_config": text, "vision_config": seeing})

    return make


@pytest.mark.parametrize("name", ["dense", "fused", "apart"])
def test_both_sides_merge_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    case = merge_case.CASES[name]
    monkeypatch.setitem(merge_case.CASES, name, replace(case, config=small(case.config)))
    monkeypatch.setattr(merge_case, "_DRAWN", 10_007)
    size, tensors = merge_case.make_case(merge_case.CASES[name], tmp_path)
    base = {k: v for path in (tmp_path / "base").glob("*.safetensors") for k, v in load_file(path).items()}
    assert (sum(each.nbytes for each in base.values()), len(base)) == (size, tensors)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for side in merge.SIDES:
        (tmp_path / side).mkdir()
        merge.run_side(side, tmp_path, tmp_path / side)
        found[side] = {
            k: v for path in (tmp_path / side).glob("*.safetensors") for k, v in load_file(path).items()
        }
    assert all(torch.equal(found["copy"][each], base[each]) for each in base)
    assert found["ours"].keys() == found["baseline"].keys()
    for each, ours in found["ours"].items():
        theirs = found["baseline"][each]
        # transformers saves fused experts as its class has them.
        theirs = theirs if theirs.shape == ours.shape else theirs.transpose(1, 2)
        # PEFT rounds the change of experts before it adds it.
        assert torch.equal(ours, theirs) or (
            ".experts." in each and torch.allclose(ours, theirs, rtol=0.02, atol=1e-3)
        ), each
    moved = sum(not torch.equal(found["ours"][each], base[each]) for each in base)
    assert moved > len(base) / 3


@pytest.mark.parametrize("way", merge_proof.WAYS)
def test_what_was_merged_is_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    case = merge_case.CASES["dense"]
    monkeypatch.setitem(merge_case.CASES, "dense", replace(case, config=small(case.config)))
    monkeypatch.setattr(merge_case, "_DRAWN", 10_007)
    merge_case.make_case(merge_case.CASES["dense"], tmp_path, adapters=2)
    (tmp_path / "merged").mkdir()
    merge_proof.merge(tmp_path, way)
    found = merge_proof.proof(tmp_path, way)
    assert found["matrices"] == found["sampled"] == found["bit_equal"] == found["changed"]
    path = sorted((tmp_path / "merged").glob("*.safetensors"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SystemExit, match="differ"):
        merge_proof.proof(tmp_path, way)
