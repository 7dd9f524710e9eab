"""lensmith launch: write what starts a recipe's training elsewhere."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from finetune.cluster.job import TARGETS
from lensmith.cli.arguments import add_recipe, recipe_of
from lensmith.cli.output import print_json
from lensmith.home import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--to", choices=TARGETS, required=True, help="a script for one or more machines, sbatch, or JobSet"
    )
    parser.add_argument("-o", "--out", metavar="DIR", default=".", help="where the file goes (here)")
    parser.add_argument("--force", action="store_true", help="overwrite a file that somebody changed")
    parser.add_argument("--name", default="", help="of job and file (release.name)")
    parser.add_argument("--nodes", type=int, help="must agree with the launcher config's num_machines")
    parser.add_argument("--gpus", type=int, help="a node; must agree with its num_processes")
    parser.add_argument("--cpus", type=int, help="a node (8 a process)")
    parser.add_argument(
        "--memory", type=int, metavar="GIB", help="slurm, k8s: of a node (the site's default)"
    )
    parser.add_argument("--queue", default="", help="slurm: partition; k8s: Kueue's local queue")
    parser.add_argument("--time", default="", help="slurm: limit, such as 1-12:00:00 (the partition's)")
    parser.add_argument(
        "--grace",
        type=int,
        metavar="SECONDS",
        help="slurm, k8s: from the warning to the end (the recipe's train.stop_grace)",
    )
    parser.add_argument("--restarts", type=int, help="slurm, k8s: started again at most so often (10)")
    parser.add_argument(
        "--sbatch",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        help="slurm: one more option, such as account=vision (repeatable)",
    )
    parser.add_argument("--image", default="", help="k8s: with Lensmith's packages and a shell")
    parser.add_argument(
        "--volume",
        metavar="CLAIM:PATH",
        action="append",
        default=[],
        help="k8s: a volume claim and where it is mounted, as here (repeatable)",
    )
    parser.add_argument("--shm", type=int, metavar="GIB", help="k8s: size of /dev/shm (8)")
    parser.add_argument("--rdma", metavar="RESOURCE", default="", help="k8s: one RDMA device a node, by name")
    parser.add_argument("--code", metavar="DIR", type=Path, help="k8s: this checkout's place in the image")
    parser.add_argument("--python", default="", help="on the nodes (this one; k8s: python)")
    parser.add_argument(
        "--secret",
        default="",
        help="for wandb online: k8s: a Secret with WANDB_API_KEY; else a file of NAME=VALUE lines, mode 600",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the file, start nothing. Raises InputError with everything that would keep it from starting."""
    from finetune.cluster.job import Wishes, make_job
    from finetune.cluster.write import FORMS, write_job

    wishes = Wishes(
        name=arguments.name,
        nodes=arguments.nodes,
        gpus=arguments.gpus,
        cpus=arguments.cpus,
        memory=arguments.memory,
        shm=arguments.shm,
        rdma=arguments.rdma,
        queue=arguments.queue,
        time=arguments.time,
        grace=arguments.grace,
        restarts=arguments.restarts,
        sbatch=arguments.sbatch,
        image=arguments.image,
        volumes=arguments.volume,
        secret=arguments.secret,
        python=arguments.python,
        code=arguments.code,
    )
    # Not made here: a home that a cluster mounts need not be on this machine.
    home = Home(Path(arguments.home))
    recipe = recipe_of(arguments)
    job = make_job(arguments.to, recipe, Path(arguments.recipe), arguments.settings, home, wishes)
    path = write_job(job, Path(arguments.out), arguments.force)
    start = FORMS[job.target].start.format(file=shlex.quote(str(path)))
    if arguments.json:
        print_json(
            {"file": str(path), "start": start, "nodes": job.nodes, "processes": job.launcher.processes}
        )
    else:
        print(f"{path}\n{start}")
    return 0
