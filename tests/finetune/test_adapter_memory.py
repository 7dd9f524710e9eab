"""An adapter is read in blocks: memory grows neither with what it holds whole nor with its rank."""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from finetune.layout import Part
from finetune.merging import adapter as adapter_module
from finetune.merging import experts as experts_module
from finetune.merging.adapter import check_values, read_adapter
from finetune.merging.change import added
from finetune.merging.checkpoint import open_checkpoint
from finetune.merging.experts import ExpertDelta, expert_low_rank
from finetune.merging.low_rank import Matrix
from finetune.merging.outside import rewrite_adapter, tensors_digest
from finetune.merging.tensor_file import DTYPES, Entry, TensorFile, open_tensor_file
from finetune.proving.outside import _values
from lensmith import families
from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.errors import InputError
from tests.finetune.test_outside_adapters import HELD, PREFIX, make_adapter, make_base, save

EMBEDDING = f"{PREFIX}model.language_model.embed_tokens.weight"
SIZE, BOUND = 96 << 20, 48 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With embeddings of 96 MiB, which a base holds too."""
    root = tmp_path_factory.mktemp("large")
    make_base(root / "base", "qwen3_vl", *HELD)
    tensors = make_adapter("qwen3_vl") | {EMBEDDING: torch.ones(SIZE // 8, 4, dtype=torch.bfloat16)}
    save(root / "adapter", tensors, {"modules_to_save": ["embed_tokens"]})
    return root


def peak(act: Callable[[], object]) -> int:
    """Bytes by which this process grew while it acted, at most (proc(5): clear_refs, VmHWM)."""
    # What other tests have freed and malloc has kept would be used again, unseen.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    act()
    return status("VmHWM") - before


def status(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{what}:"))


@pytest.mark.parametrize("act", ["re-keyed", "looked through", "digested", "compared"])
def test_what_is_held_whole_is_never_held_in_memory(large: Path, tmp_path: Path, act: str) -> None:
    source, family = large / "adapter", families.get("qwen3_vl")
    base = open_checkpoint(large / "base")
    acts: dict[str, Callable[[], object]] = {
        "re-keyed": lambda: rewrite_adapter(source, tmp_path / "out", base, family),
        "looked through": lambda: check_values(read_adapter(source)),
        "digested": lambda: tensors_digest(source),
        "compared": lambda: _values(source),
    }
    assert peak(acts[act]) < BOUND
    if act == "re-keyed":
        assert (tmp_path / "out" / ADAPTER_WEIGHTS).stat().st_size > SIZE


def test_the_measure_sees_a_tensor_that_is_held(large: Path) -> None:
    file = open_tensor_file(large / "adapter" / ADAPTER_WEIGHTS)
    assert peak(lambda: file.read(EMBEDDING)) > BOUND


def test_a_value_that_is_not_finite_is_found_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.merging.tensor_file._LOOKED_AT_BYTES", 64)
    tensors = make_adapter("qwen3_vl")
    name = next(name for name in tensors if ".lora_B." in name)
    tensors[name] = torch.zeros(6, 2)
    tensors[EMBEDDING] = torch.zeros(50, 4)
    tensors[EMBEDDING][49, 3] = math.nan
    source = save(tmp_path / "adapter", tensors, {"modules_to_save": ["embed_tokens"]})
    with pytest.raises(InputError, match=rf"is broken\n.*{EMBEDDING}: holds NaN"):
        check_values(read_adapter(source))


def test_an_adapter_that_changes_nothing_is_told_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.merging.tensor_file._LOOKED_AT_BYTES", 16)
    tensors = {
        name: torch.zeros_like(each) if ".lora_B." in name else each
        for name, each in make_adapter("qwen3_vl").items()
    }
    with pytest.raises(InputError, match="changes nothing"):
        check_values(read_adapter(save(tmp_path / "zero", tensors, {})))
    last = next(name for name in tensors if ".lora_B." in name)
    tensors[last][5, 1] = 1e-3
    check_values(read_adapter(save(tmp_path / "one", tensors, {})))


Reads = dict[str, int]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """By tensor the most values of it that were read at once."""
    most: Reads = {}
    fill = TensorFile._fill

    def noted(self: TensorFile, entry: Entry, first: int, view: memoryview) -> None:
        most[entry.name] = max(most.get(entry.name, 0), len(view) // DTYPES[entry.dtype].itemsize)
        fill(self, entry, first, view)

    monkeypatch.setattr(TensorFile, "_fill", noted)
    return most


def test_a_large_b_is_read_with_the_rows_that_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    """An output head's, of a high rank."""
    draw = torch.Generator().manual_seed(0)
    tensors = {
        f"{PREFIX}lm_head.lora_A.weight": torch.randn(2, 64, generator=draw),
        f"{PREFIX}lm_head.lora_B.weight": torch.randn(1000, 2, generator=draw),
    }
    adapter = read_adapter(save(tmp_path / "adapter", tensors, {}))
    base = torch.randn(1000, 64, generator=draw)
    blocks = [(first, base[first : first + 100]) for first in range(0, 1000, 100)]
    found = {}
    for most in (1 << 20, 0):
        monkeypatch.setattr(adapter_module, "_HELD_BYTES", most)
        reads.clear()
        merged = adapter.merger(adapter.deltas["lm_head"])
        found[most] = torch.cat([merged(block, first) for first, block in blocks])
        assert reads[f"{PREFIX}lm_head.lora_B.weight"] == (200 if not most else 2000)
    assert torch.equal(found[0], found[1 << 20])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_factors_are_read_for_some_experts_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads, dtype: torch.dtype
) -> None:
    """Whatever the rank: of A one expert's, of B, where all stand side by side, a few rows of each."""
    experts, out, into, rank = 5, 12, 8, 3
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(experts * rank, into, generator=draw).to(dtype)
    b = torch.randn(out, rank * experts, generator=draw).to(dtype)
    save_file({"a": a, "b": b}, tmp_path / "x.safetensors")
    file = open_tensor_file(tmp_path / "x.safetensors")
    # Two experts at a time, and four rows of B.
    monkeypatch.setattr(experts_module, "_HELD", 2 * out * rank)
    monkeypatch.setattr(experts_module, "_READ", 4 * rank * experts)
    held: list[int] = []
    some = experts_module._some_experts

    def noted(*arguments: Any) -> Matrix:
        held.append(some(*arguments).size)
        return some(*arguments)

    monkeypatch.setattr(experts_module, "_some_experts", noted)
    start = expert_low_rank(file, {"e": ExpertDelta("e", "a", "b", 0.5, rank)})
    base = torch.randn(experts, out, into, generator=draw)
    # PEFT's own words for it (tuners/lora/layer.py, ParamWrapper.get_delta_weight).
    delta = torch.einsum(
        "o r e, e r i -> e o i",
        b.float().reshape(out, rank, experts),
        a.float().reshape(experts, rank, into),
    )
    for number in (0, 4, 1, 3, 2):
        found = added(start(Part("e"), number))(base[number], 0)
        assert torch.allclose(found, base[number] + 0.5 * delta[number], atol=1e-6)
    assert set(held) == {2 * out * rank, out * rank}
    assert reads == {"a": rank * into, "b": 4 * rank * experts}
