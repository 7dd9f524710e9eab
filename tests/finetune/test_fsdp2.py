"""FSDP2: torch's own on two CPUs learns what one process learns; where it divides a model, that is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune.fsdp import check_divided, divide_by_blocks
from finetune.launcher import read_launcher
from finetune.started import check_undivided, engine_facts
from lensmith.errors import IntegrityError
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_a_step_divided_is_a_step_alone(tmp_path: Path) -> None:
    """With an image on one process alone, and saved as whole tensors."""
    script = ROOT / "tests/finetune/fsdp2_step.py"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_bytes())
    assert found["divided"]
    assert found["share"] < 0.6
    assert found["moved"] > 0.01
    assert found["differs"] < 1e-5


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as the only one of its group."""
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo")
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("joined")
def test_a_model_that_was_divided_in_silence_is_seen() -> None:
    """By variables of the environment accelerate divides whatever its config says."""
    model = nn.Sequential(nn.Linear(4, 4))
    check_undivided(model, Path("zero.yaml"))
    fully_shard(model[0], mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(IntegrityError, match="FSDP divided the model"):
        check_undivided(model, Path("zero.yaml"))
    trained = SimpleNamespace(model_wrapped=model)
    with pytest.raises(IntegrityError, match="FSDP divided the model"):
        engine_facts(trained, read_launcher(ROOT / "recipes/accelerate/cpu.yaml"))  # pyright: ignore[reportArgumentType]


class Block(GradientCheckpointingLayer):
    """A block of a tower."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)


def problems(model: nn.Module, processes: int) -> list[str]:
    with pytest.raises(IntegrityError, match="did not divide the model") as error:
        check_divided(model, processes, Path("fsdp2.yaml"))
    return [f"{each.where}: {each.what}" for each in error.value.problems]


@pytest.mark.usefixtures("joined")
def test_weights_are_divided_over_all_processes_and_gathered_block_by_block() -> None:
    mesh = init_device_mesh("cpu", (1,))
    model = nn.Sequential(Block(), nn.Linear(4, 4))
    no_module = "model: Sequential is no module of FSDP2"
    assert no_module in problems(model, 1)
    fully_shard(model[0], mesh=mesh)
    assert "1.weight: is not divided over 1 processes" in problems(model, 1)
    fully_shard(model, mesh=mesh)
    assert check_divided(model, 1, Path("fsdp2.yaml")) == 1
    assert "0.inner.weight: is not divided over 2 processes" in problems(model, 2), "over one of two"

    together = nn.Sequential(Block())
    fully_shard(together, mesh=mesh)
    assert "0: is not gathered by itself" in problems(together, 1)
    across = nn.Sequential(Block())
    for each in (across[0], across):
        fully_shard(each, mesh=mesh, shard_placement_fn=lambda weight: Shard(weight.ndim - 1))
    assert "0.inner.weight: is not divided over 1 processes" in problems(across, 1), "along another dimension"
    assert problems(nn.Sequential(Block(), fully_shard(nn.Linear(4, 4), mesh=mesh)), 1)[-2] == no_module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_summed_in_float32(dtype: torch.dtype) -> None:
    """And what the model gives, its loss among it, stays in the dtype in which it was computed."""
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    accelerator = SimpleNamespace(is_fsdp2=True, state=SimpleNamespace(fsdp_plugin=plugin))
    divide_by_blocks(accelerator, nn.Sequential(Block()), dtype)  # pyright: ignore[reportArgumentType]
    assert plugin.transformer_cls_names_to_wrap == ["Block"]
    policy = plugin.mixed_precision_policy
    if dtype == torch.float32:
        assert policy is None
    else:
        assert (policy.param_dtype, policy.reduce_dtype) == (dtype, torch.float32)
        assert policy.output_dtype is None
