"""What is written, byte by byte, and that those who read it can."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from finetune.cluster.job import Job
from finetune.cluster.seal import is_untouched
from finetune.cluster.write import FORMS, write_job
from tests.finetune.cluster.jobs import ZERO3, job

GOLDEN = Path(__file__).parent / "golden"
CPU = dataclasses.replace(ZERO3, kind="NO", processes=1, zero_stage=0, cpu=True)

JOBS: dict[str, Job] = {
    "one_gpu_machine.local.sh": job("local"),
    "cpu.local.sh": job("local", launcher=CPU, config=CPU.path.with_name("cpu.yaml"), gpus=0, cpus=8),
    "two_machines.torchrun.sh": job("torchrun", nodes=2),
    "one_node.sbatch": job("slurm"),
    "four_nodes.sbatch": job(
        "slurm",
        nodes=4,
        memory=900,
        queue="gpu",
        time="1-12:00:00",
        grace=300,
        restarts=3,
        sbatch=("account=vision", "constraint=h100", "exclusive"),
        online=True,
        secret="/shared/secrets/wandb.env",
        settings=("train.epochs=3.0", "train.wandb=online"),
    ),
    "one_pod.jobset.yaml": job("k8s", python="python"),
    "four_pods.jobset.yaml": job(
        "k8s",
        nodes=4,
        python="python",
        memory=900,
        shm=64,
        rdma="rdma/hca_shared_devices_a",
        queue="vision",
        online=True,
        secret="wandb",
        settings=("train.epochs=3.0", "train.wandb=online"),
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_golden(name: str, tmp_path: Path) -> None:
    """A change of what is written shows here: look at it, then copy the file over."""
    written = write_job(JOBS[name], tmp_path)
    assert written.name == f"bank-forms.{FORMS[JOBS[name].target].ending}"
    assert is_untouched(written.read_bytes())
    assert written.read_text() == (GOLDEN / name).read_text()


@pytest.mark.parametrize("name", [name for name in JOBS if not name.endswith("yaml")])
def test_bash_reads_it(name: str) -> None:
    subprocess.run(["bash", "-n", str(GOLDEN / name)], check=True)
