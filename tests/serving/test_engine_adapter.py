"""An adapter by vLLM's names: the same change of the same weights, whatever they are called and joined to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError
from lensmith.families.layout import Joined, Layout
from serving.engine_adapter import engine_adapter, engine_rank

LAYOUT = Layout(
    renames=((r"^model\.o\.", "disk.out."),),
    joined=(Joined("model.layers.{}", ("up", "gate"), "up_gate"),),
)
# Rows of each layer's weight.
OUT = {"model.layers.0.up": 6, "model.layers.0.gate": 6, "model.layers.1.up": 4, "model.layers.1.gate": 8}
OUT["model.o"] = 5
CONFIG: dict[str, Any] = {"r": 2, "lora_alpha": 6, "use_rslora": False, "base_model_name_or_path": "b"}


def write_adapter(folder: Path, ranks: dict[str, int] | None = None, **config: Any) -> Path:
    draw = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for name, out in OUT.items():
        rank = (ranks or {}).get(name, 2)
        tensors[f"base_model.model.{name}.lora_A.weight"] = draw.normal(size=(rank, 3)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = draw.normal(size=(out, rank)).astype(np.float32)
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(CONFIG | config))
    return folder


def deltas(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    """What vLLM (0.32, lora/peft_helper.py) adds to each weight."""
    config = json.loads(files[ADAPTER_CONFIG])
    tensors = load(files[ADAPTER_WEIGHTS])

    def stated(pattern: str, name: str, otherwise: float) -> float:
        found = config[pattern].items()
        return next((value for key, value in found if re.match(rf"(.*\.)?({key})$", name)), otherwise)

    changes: dict[str, np.ndarray] = {}
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        rank = stated("rank_pattern", module, config["r"])
        assert rank == a.shape[0] <= config["r"]
        assert not config["use_rslora"]
        scaling = stated("alpha_pattern", module, config["lora_alpha"]) / rank
        changes[module] = scaling * tensors[name.replace("lora_A", "lora_B")] @ a
    return changes


def whole(folder: Path, module: str, scaling: float) -> np.ndarray:
    tensors = load((folder / ADAPTER_WEIGHTS).read_bytes())
    a, b = (tensors[f"base_model.model.{module}.lora_{each}.weight"] for each in "AB")
    return scaling * b @ a


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 3.0), (True, 6 / 2**0.5)])
def test_joined_and_renamed_it_changes_the_same(tmp_path: Path, rslora: bool, scaling: float) -> None:
    folder = write_adapter(tmp_path, use_rslora=rslora)
    found = deltas(engine_adapter(folder, LAYOUT))
    assert found.keys() == {"model.layers.0.up_gate", "model.layers.1.up_gate", "disk.out"}
    assert np.allclose(found["disk.out"], whole(folder, "model.o", scaling), atol=1e-6)
    for layer in (0, 1):
        parts = [whole(folder, f"model.layers.{layer}.{part}", scaling) for part in ("up", "gate")]
        assert np.allclose(found[f"model.layers.{layer}.up_gate"], np.concatenate(parts), atol=1e-6)
    assert engine_rank(folder, LAYOUT) == 4


def test_ranks_and_scaling_of_their_own_are_kept(tmp_path: Path) -> None:
    folder = write_adapter(
        tmp_path,
        {"model.o": 3, "model.layers.0.gate": 1, "model.layers.0.up": 5},
        alpha_pattern={"o": 12, "layers.0.up": 10, "layers.0.gate": 2},
    )
    found = deltas(engine_adapter(folder, LAYOUT))
    assert np.allclose(found["disk.out"], whole(folder, "model.o", 4.0), atol=1e-6)
    parts = [whole(folder, f"model.layers.0.{part}", 2.0) for part in ("up", "gate")]
    assert np.allclose(found["model.layers.0.up_gate"], np.concatenate(parts), atol=1e-6)
    assert engine_rank(folder, LAYOUT) == 6


def test_parts_that_cannot_be_one_are_all_named(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, alpha_pattern={"layers.1.up": 1})
    tensors = load((folder / ADAPTER_WEIGHTS).read_bytes())
    kept = {name: tensor for name, tensor in tensors.items() if "layers.0.gate" not in name}
    save_file(kept, folder / ADAPTER_WEIGHTS)
    with pytest.raises(InputError) as caught:
        engine_adapter(folder, LAYOUT)
    told = str(caught.value)
    assert "model.layers.0: is not adapted, what vLLM joins it with is: model.layers.0.gate" in told
    assert "model.layers.1.up_gate: has parts with different scaling" in told
    assert told.count("merge it: serve.mode: merged") == 2
