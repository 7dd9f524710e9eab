"""FSDP2: torch's own on two CPUs learns what one process learns; where it divides a model, that is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from finetune.started import check_undivided
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


def test_a_model_that_was_divided_in_silence_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By variables of the environment accelerate divides whatever its config says."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(4, 4))
    check_undivided(model, Path("zero.yaml"))
    for name, value in {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "RANK": "0",
        "WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo")
    try:
        fully_shard(model[0], mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(IntegrityError, match="FSDP divided the model"):
            check_undivided(model, Path("zero.yaml"))
    finally:
        torch.distributed.destroy_process_group()
