"""Writing what starts a job, and saying how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.cluster.job import Job, Target
from finetune.cluster.jobset import jobset_manifest
from finetune.cluster.script import local_script, torchrun_script
from finetune.cluster.seal import write_sealed
from finetune.cluster.slurm import slurm_script


@dataclass(frozen=True)
class Form:
    """How a target is written to: the file's ending, its text, and the command that starts it."""

    ending: str
    text: Callable[[Job], str]
    start: str


FORMS: dict[Target, Form] = {
    "local": Form("local.sh", local_script, "bash {file}"),
    "torchrun": Form("torchrun.sh", torchrun_script, "bash {file} RANK HEAD WORD"),
    "slurm": Form("sbatch", slurm_script, "sbatch {file}"),
    "k8s": Form("jobset.yaml", jobset_manifest, "kubectl apply -f {file}"),
}


def write_job(job: Job, folder: Path, force: bool = False) -> Path:
    """Write the job's file into `folder`, which is made; its path.

    Raises InputError where a file of that name is there that somebody changed, unless `force`.
    """
    form = FORMS[job.target]
    path = folder / f"{job.name}.{form.ending}"
    write_sealed(path, form.text(job), force)
    if job.target == "slurm" and job.home.is_dir():
        # Slurm ends a job at once whose log it cannot open.
        (job.home / "logs").mkdir(exist_ok=True)
    return path
