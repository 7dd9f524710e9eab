"""Jobs as the tests of finetune/cluster write them down, without a recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from finetune.cluster.job import Job, Target, Volume
from finetune.launcher import Launcher

ZERO3 = Launcher(
    path=Path("/shared/lensmith/recipes/accelerate/deepspeed_zero3.yaml"),
    kind="DEEPSPEED",
    processes=8,
    machines=1,
    zero_stage=3,
    offload_optimizer=False,
    offload_parameters=False,
    cpu=False,
    port=None,
    address="",
    gathers=True,
)
# What a shell, YAML, sbatch and Kubernetes each read as something else than text.
HOSTILE = """it's "$(touch pwned)" `touch pwned` $(HOME) $$ ${HOME} \\ ; & | > # {a: *b} - é"""


def job(target: Target, nodes: int = 1, **changes: Any) -> Job:
    """A job of 8 GPUs a node on a shared disk; `changes` to it by field."""
    launcher = dataclasses.replace(
        ZERO3,
        machines=nodes,
        processes=8 * nodes,
        path=ZERO3.path if nodes == 1 else ZERO3.path.with_name("deepspeed_zero3_nodes.yaml"),
    )
    plain = Job(
        target=target,
        name="bank-forms",
        launcher=launcher,
        config=launcher.path,
        script=Path("/shared/lensmith/scripts/train.py"),
        recipe=Path("/shared/lensmith/recipes/bank_forms/qwen3_vl_8b_full_8xh100.yaml"),
        home=Path("/shared/home"),
        settings=("train.epochs=3.0",),
        python="/shared/lensmith/.venv/bin/python",
        gpus=8,
        cpus=64,
        memory=None,
        shm=8,
        rdma="",
        queue="",
        time="",
        grace=120,
        restarts=10,
        sbatch=(),
        image="registry.example.org/vision/lensmith:4" if target == "k8s" else "",
        volumes=(Volume("vision-shared", Path("/shared")),) if target == "k8s" else (),
        online=False,
        secret="",
    )
    return dataclasses.replace(plain, **changes)
