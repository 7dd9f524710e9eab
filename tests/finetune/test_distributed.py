"""Two processes, on one machine and on two, under DeepSpeed: the losses of one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune import checkpoint as checkpoints
from finetune.launch import SCRIPT, train
from finetune.run import run_key
from lensmith.artifact import Artifact
from lensmith.errors import LensmithError
from tests.finetune.conftest import Training, TrainingMaker

pytestmark = pytest.mark.slow

# Sums of float32 in another order.
TOLERANCE = 2e-5


def launcher(path: Path, content: dict[str, Any], stage: int, offload: str = "none", **settings: Any) -> Path:
    """Write a launcher config; `offload` says where the optimizer lies, and under ZeRO-3 the weights too."""
    deepspeed = {**content["deepspeed_config"], "zero_stage": stage, "offload_optimizer_device": offload}
    if stage == 3:
        deepspeed.update(zero3_init_flag=True, zero3_save_16bit_model=True, offload_param_device=offload)
    if "num_machines" in settings:
        deepspeed.update(deepspeed_multinode_launcher="standard")
    path.write_text(yaml.safe_dump({**content, "deepspeed_config": deepspeed, **settings}))
    return path


def assert_deepspeed(run: Artifact, stage: int, machines: int = 1, offload: Sequence[str] = ()) -> None:
    """What the run recorded of what really ran: accelerate ignores settings silently on a CPU."""
    assert run.record()["engine"] == {
        "class": "DeepSpeedEngine",
        "zero_stage": stage,
        "offload": list(offload),
        "device": "cpu",
        "processes": 2,
        "machines": machines,
    }


def assert_same_weights(ours: Artifact, theirs: Artifact, file: str) -> None:
    """The same tensors, equal but for a few elements: Adam moves one whose gradient is rounding noise by the
    learning rate, in the direction of the noise's sign."""
    left, right = load_file(ours.path / file), load_file(theirs.path / file)
    assert left.keys() == right.keys()
    moved = torch.cat([(left[name] - right[name]).abs().flatten() > 1e-4 for name in right])
    assert float(moved.float().mean()) < 0.002


FULL: dict[str, Any] = {
    "train__method": "full",
    "train__towers": {"vision": "freeze", "connector": "train", "language": "train"},
    "train__learning_rate": 0.001,
    "train__tower_learning_rates": {"connector": 0.004},
}
# All of the connector beside an adapter.
WHOLE: dict[str, Any] = {
    "train__towers": {"vision": "freeze", "connector": "train", "language": "adapt"},
    "train__tower_learning_rates": {"connector": 0.004},
}


def test_evaluated_and_ended_early(
    new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    """Two processes share three rows, and end where one process does.

    The run cannot be written at first; then its last evaluation is as if a stop had left it out.
    """
    # No library's own patience: the processes' is checked when they have joined.
    settings: dict[str, Any] = {"train__max_steps": 9, "train__save_every": 100}
    settings["train__collective_timeout"] = 901
    settings["train__evaluate"] = {"every": 1, "rows": 3, "patience": 1}
    single = new_training(**settings).run()
    config = launcher(tmp_path / "zero2.yaml", deepspeed_config, 2)
    training = new_training(**settings, train__launcher=config, train__batch_size=1)
    key = run_key(training.recipe, training.base, training.dataset)
    blocked = training.home.artifact_path("run", key).parent
    blocked.write_bytes(b"")
    words = (training.recipe, training.recipe_path, (), training.home, training.base, training.dataset)
    with pytest.raises(LensmithError, match=f"process 0: NotADirectoryError.*{key[:24]}"):
        train(*words)
    last = checkpoints.last_whole(training.home.work_path(key))
    assert last is not None
    folder, manifest = last
    assert (manifest.step, manifest.over, manifest.processes) == (2, True, 2)
    assert [each.model_dump() for each in manifest.scores] == single.body["evaluation"]["scores"]
    checkpoints.add_scores(folder, manifest.scores[:1], over=False)
    blocked.unlink()
    run = train(*words)
    assert run.record()["resumed_at"] == 2
    assert_deepspeed(run, 2)
    assert run.body["evaluation"] == single.body["evaluation"]
    assert (run.body["steps"], run.body["evaluation"]["ended_early"]) == (2, True)
    assert_same_weights(run, single, "adapter_model.safetensors")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def commands(training: Training, config: Path) -> list[list[str]]:
    """What is typed on each of two machines."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    script = [str(SCRIPT), str(training.recipe_path), "--home", str(training.home.root)]
    return [
        [*launch, "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1", *script] for rank in range(2)
    ]


def test_two_machines(
    new_training: TrainingMaker,
    lora_losses: list[float],
    deepspeed_config: dict[str, Any],
    tmp_path: Path,
) -> None:
    config = launcher(
        tmp_path / "nodes.yaml",
        deepspeed_config,
        2,
        num_machines=2,
        machine_rank=0,
        main_process_ip="127.0.0.1",
        main_process_port=free_port(),
        rdzv_backend="static",
        same_network=True,
    )
    training = new_training(train__launcher=config, train__batch_size=1)
    logs = [(tmp_path / f"machine-{rank}.log").open("wb") for rank in range(2)]
    machines = [
        subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "DS_ACCELERATOR": "cpu"})
        for command, log in zip(commands(training, config), logs, strict=True)
    ]
    try:
        codes = [machine.wait(300) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    tails = [(tmp_path / f"machine-{rank}.log").read_text()[-2000:] for rank in range(2)]
    assert codes == [0, 0], tails
    run = training.home.find("run", run_key(training.recipe, training.base, training.dataset))
    assert run is not None
    assert_deepspeed(run, 2, machines=2)
    assert training.losses() == pytest.approx(lora_losses, abs=TOLERANCE)
