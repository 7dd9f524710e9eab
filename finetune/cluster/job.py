"""A training as a cluster is asked for it: what is written down, by the paths that the nodes see."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.launch import SCRIPT
from finetune.launcher import Launcher, read_launcher
from lensmith.address import is_address
from lensmith.home import Home
from lensmith.recipe import PATHS, Recipe
from lensmith.yaml_file import parse_scalar

Target = Literal["local", "torchrun", "slurm", "k8s"]
TARGETS: tuple[Target, ...] = ("local", "torchrun", "slurm", "k8s")
ROOT = SCRIPT.parent.parent
# torchrun's own default (torch.distributed.run, --master-port).
PORT = 29500
RESTARTS = 10
# Four loading workers a process (finetune.train), the process itself, and room for its threads.
CPUS_A_PROCESS = 8


@dataclass(frozen=True)
class Volume:
    """A persistent volume claim and where every pod mounts it."""

    claim: str
    path: Path


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for; None, "" and () where it says nothing.

    nodes; gpus and cpus a node; memory and shm in GiB a node; grace in seconds; restarts: how often at most.
    secret: a file of NAME=VALUE lines on the nodes, for k8s the name of a Secret with WANDB_API_KEY.
    queue: a Slurm partition, or a Kueue queue. sbatch: further options as KEY=VALUE. volumes: CLAIM:PATH.
    code: where the image has this checkout.
    """

    name: str = ""
    nodes: int | None = None
    gpus: int | None = None
    cpus: int | None = None
    memory: int | None = None
    shm: int | None = None
    rdma: str = ""
    queue: str = ""
    time: str = ""
    grace: int | None = None
    restarts: int | None = None
    sbatch: Sequence[str] = ()
    image: str = ""
    volumes: Sequence[str] = ()
    secret: str = ""
    python: str = ""
    code: Path | None = None


@dataclass(frozen=True)
class Job:
    """What is written down: every path as the nodes see it.

    config: the accelerate config. settings: the -s values, paths in them absolute. gpus, cpus: a node; no
    GPUs for a launcher of CPU processes. memory, shm: GiB a node. online: wandb needs its key.
    """

    target: Target
    name: str
    launcher: Launcher
    config: Path
    script: Path
    recipe: Path
    home: Path
    settings: tuple[str, ...]
    python: str
    gpus: int
    cpus: int
    memory: int | None
    shm: int
    rdma: str
    queue: str
    time: str
    grace: int
    restarts: int
    sbatch: tuple[str, ...]
    image: str
    volumes: tuple[Volume, ...]
    online: bool
    secret: str

    @property
    def nodes(self) -> int:
        return self.launcher.machines

    @property
    def processes(self) -> int:
        """On each node."""
        return self.launcher.processes_a_machine


def make_job(
    target: Target, recipe: Recipe, recipe_path: Path, settings: Sequence[str], home: Home, wishes: Wishes
) -> Job:
    """The job that starts the recipe's training on `target`.

    Raises InputError with every problem: a launcher config for another number of processes, names and values
    that the target cannot hold, paths that its nodes do not see, options of another target.
    """
    from finetune.cluster.checks import check_job, read_volumes

    launcher = read_launcher(recipe.train.launcher)
    volumes, problems = read_volumes(wishes.volumes)
    code = wishes.code or ROOT
    job = Job(
        target=target,
        name=wishes.name or recipe.release.name,
        launcher=launcher,
        config=moved(launcher.path.resolve(), code),
        script=moved(SCRIPT, code),
        recipe=moved(recipe_path.resolve(), code),
        home=home.root,
        settings=tuple(_absolute(each, code) for each in settings),
        python=wishes.python or ("python" if target == "k8s" else sys.executable),
        gpus=0 if launcher.cpu else launcher.processes_a_machine,
        cpus=wishes.cpus or CPUS_A_PROCESS * launcher.processes_a_machine,
        memory=wishes.memory,
        shm=wishes.shm or 8,
        rdma=wishes.rdma,
        queue=wishes.queue,
        time=wishes.time,
        grace=recipe.train.stop_grace if wishes.grace is None else wishes.grace,
        restarts=RESTARTS if wishes.restarts is None else wishes.restarts,
        sbatch=tuple(wishes.sbatch),
        image=wishes.image,
        volumes=volumes,
        online=recipe.train.wandb == "online",
        secret=wishes.secret,
    )
    check_job(job, recipe, wishes, code, problems)
    return job


def moved(path: Path, code: Path) -> Path:
    """Where the nodes have `path`: what lies in this checkout lies in theirs."""
    return code / path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _absolute(setting: str, code: Path) -> str:
    """The setting with its path made absolute: the nodes start elsewhere."""
    dotted, _, raw = setting.partition("=")
    value = parse_scalar(raw)
    if dotted not in PATHS or not isinstance(value, str) or is_address(value):
        return setting
    path = str(moved((Path.cwd() / Path(value).expanduser()).resolve(), code))
    # JSON's text is YAML's too; bare where YAML reads it as it stands.
    return f"{dotted}={path if _reads_as_it_stands(path) else json.dumps(path)}"


def _reads_as_it_stands(text: str) -> bool:
    try:
        return parse_scalar(text) == text
    except ValueError:
        return False
