"""What is wrong with a job, before anything is written: every problem, each with how to mend it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from finetune.cluster.job import ROOT, Job, Volume, Wishes, moved
from finetune.cluster.slurm import seconds_of
from finetune.launcher import division_problems
from lensmith.errors import InputError, Problem
from lensmith.recipe import Recipe

# What JobSet adds to its name for the pod of a node: the replicated job's name, indexes, five random letters
# (pkg/webhooks/jobset_webhook.go of JobSet 0.12, which refuses names above 63 characters).
POD_SUFFIX = "-node-0-{last}-abcde"
_LONGEST_LABEL = 63
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_NAME = re.compile(r"[a-z0-9][-a-z0-9]{0,61}")
_QUEUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.,-]*[A-Za-z0-9])?")
# sbatch --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on (sbatch(1)).
_TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}")
# sbatch --signal takes no more.
_LONGEST_GRACE_S = 65535
# sbatch reads its lines by rules that are not a shell's: nothing that could mean something to it.
_PLAIN = re.compile(r"[A-Za-z0-9_.,:@=+/()*&|\[\]-]+")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_.,:@=+/-]+")
_SBATCH_KEY = re.compile(r"[a-z][a-z-]*[a-z]")
# Options that every script has, or must not have: the ranks would not be those of the launcher config.
_SBATCH_OURS = (
    *("array", "cpus-per-task", "gpus", "gpus-per-node", "gpus-per-task", "gres", "job-name", "mem", "nodes"),
    *("ntasks", "ntasks-per-node", "open-mode", "output", "error", "partition", "requeue", "no-requeue"),
    *("signal", "time", "wrap"),
)


def check_job(job: Job, recipe: Recipe, wishes: Wishes, code: Path, found: Sequence[Problem] = ()) -> None:
    """Raise InputError with everything that is wrong with the job, after what was `found` before."""
    problems = [*found, *division_problems(job.launcher, recipe)]
    problems += [*_size_problems(job, wishes), *_name_problems(job), *_number_problems(wishes)]
    problems += _option_problems(job, wishes)
    problems += _path_problems(job, recipe, code)
    if job.target in ("slurm", "k8s"):
        problems += _grace_problems(job, wishes)
    if job.target == "slurm":
        problems += _slurm_problems(job)
    if job.target == "k8s":
        problems += _k8s_problems(job, wishes)
        problems += _unseen(job, recipe, wishes, code)
    if problems:
        raise InputError(f"this training cannot be launched with --to {job.target}", problems)


def read_volumes(given: Sequence[str]) -> tuple[tuple[Volume, ...], list[Problem]]:
    """The volumes of CLAIM:PATH texts, and what is wrong with the others."""
    volumes: list[Volume] = []
    problems: list[Problem] = []
    for each in given:
        claim, _, path = each.partition(":")
        if not _OBJECT.fullmatch(claim) or not path.startswith("/") or path == "/" or ":" in path:
            mend = "for example models:/shared/models"
            problems.append(Problem(f"{each!r} is not CLAIM:PATH", "--volume", mend))
        elif Path(path) in [volume.path for volume in volumes]:
            problems.append(Problem(f"{path} is given twice", "--volume"))
        else:
            volumes.append(Volume(claim, Path(path)))
    return tuple(volumes), problems


def _size_problems(job: Job, wishes: Wishes) -> list[Problem]:
    launcher = job.launcher
    nodes = job.nodes if wishes.nodes is None else wishes.nodes
    gpus = job.gpus if wishes.gpus is None else wishes.gpus
    problems: list[Problem] = []
    if (nodes, gpus) != (job.nodes, job.gpus):
        asked = f"{nodes} nodes with {gpus} GPUs each"
        stated = f"num_machines {job.nodes}, num_processes {launcher.processes}"
        if launcher.cpu:
            what = f"{asked} are asked for; it states {stated}, on CPUs"
            mend = "leave --gpus out and let --nodes agree, or name a config of GPUs: -s train.launcher=FILE"
        else:
            what = f"{asked} are {nodes * gpus} processes; it states {stated}"
            mend = (
                f"copy it with num_machines: {nodes} and num_processes: {nodes * gpus}, and name the copy:"
                " -s train.launcher=COPY"
            )
        problems.append(Problem(what, str(launcher.path), mend))
    if job.nodes > 1 and launcher.kind in ("NO", "MULTI_CPU"):
        what = f"accelerate does not start {launcher.kind} on several machines by itself"
        problems.append(Problem(what, f"{launcher.path} distributed_type", "set it to DEEPSPEED"))
    if job.nodes > 1 and job.target == "local":
        what = f"{launcher.path.name} is for {job.nodes} machines"
        problems.append(Problem(what, "--to local", "--to torchrun, slurm or k8s"))
    if job.nodes == 1 and job.target == "torchrun":
        problems.append(Problem(f"{launcher.path.name} is for one machine", "--to torchrun", "--to local"))
    return problems


def _name_problems(job: Job) -> list[Problem]:
    if not _NAME.fullmatch(job.name):
        what = f"{job.name!r} is no name: small letters, digits and hyphens, at most 62"
        return [Problem(what, "--name", "--name NAME")]
    longest = _LONGEST_LABEL - len(POD_SUFFIX.format(last=job.nodes - 1))
    if job.target != "k8s" or (_LABEL.fullmatch(job.name) and len(job.name) <= longest):
        return []
    what = (
        f"{job.name!r} cannot name pods: a letter first, a letter or digit last, at most {longest} characters"
    )
    better = job.name if job.name[0].isalpha() else f"run-{job.name}"
    return [Problem(what, "the recipe's release.name", f"--name {better[:longest].rstrip('-')}")]


def _number_problems(wishes: Wishes) -> list[Problem]:
    least = {
        "--nodes": (wishes.nodes, 1),
        "--gpus": (wishes.gpus, 0),
        "--cpus": (wishes.cpus, 1),
        "--memory": (wishes.memory, 1),
        "--shm": (wishes.shm, 1),
        "--grace": (wishes.grace, 1),
        "--restarts": (wishes.restarts, 0),
    }
    return [
        Problem(f"{value} is less than {bound}", option)
        for option, (value, bound) in least.items()
        if value is not None and value < bound
    ]


def _grace_problems(job: Job, wishes: Wishes) -> list[Problem]:
    """Of how long a job has to stop: what Slurm would not wait, and what would stop it as it begins."""
    where = "train.stop_grace" if wishes.grace is None else "--grace"
    if job.grace > _LONGEST_GRACE_S:
        return [Problem(f"{job.grace} is more than {_LONGEST_GRACE_S}", where, "--grace SECONDS")]
    known = job.target == "slurm" and _TIME.fullmatch(job.time)
    allowed = seconds_of(job.time) if known else job.grace + 1
    if job.grace < allowed:
        return []
    what = f"the job would be stopped at once: {job.grace} s before its {allowed} s are over"
    return [Problem(what, where, "--grace SECONDS, or a longer --time")]


def _option_problems(job: Job, wishes: Wishes) -> list[Problem]:
    """Options that say nothing to this target: ignored, they would be believed."""
    only = {
        "--image": (wishes.image, ("k8s",)),
        "--volume": (wishes.volumes, ("k8s",)),
        "--shm": (wishes.shm, ("k8s",)),
        "--rdma": (wishes.rdma, ("k8s",)),
        "--code": (wishes.code, ("k8s",)),
        "--sbatch": (wishes.sbatch, ("slurm",)),
        "--time": (wishes.time, ("slurm",)),
        "--queue": (wishes.queue, ("slurm", "k8s")),
        "--memory": (wishes.memory, ("slurm", "k8s")),
        "--grace": (wishes.grace, ("slurm", "k8s")),
        "--restarts": (wishes.restarts, ("slurm", "k8s")),
    }
    problems = [
        Problem(f"is for --to {' and '.join(targets)}", option, "leave it out")
        for option, (given, targets) in only.items()
        if given not in (None, "", (), []) and job.target not in targets
    ]
    if job.secret and not job.online:
        what = "nothing would read it: the recipe's train.wandb is not online"
        problems.append(Problem(what, "--secret", "leave it out, or -s train.wandb=online"))
    return problems


def _path_problems(job: Job, recipe: Recipe, code: Path) -> list[Problem]:
    """Control characters (a line's end would end a comment or a directive), and places that depend on
    where somebody stands."""
    given = {
        "the recipe": str(job.recipe),
        "train.launcher": str(job.config),
        "--home": str(job.home),
        "--python": job.python,
        "--secret": job.secret,
        "the checkout": str(job.script),
        **{f"-s {each.partition('=')[0]!r}": each for each in job.settings},
        **{f"--volume {volume.claim}": str(volume.path) for volume in job.volumes},
    }
    problems = [
        Problem(f"{text!r} holds characters that do not print", where, "rename it")
        for where, text in given.items()
        if not text.isprintable()
    ]
    problems += [
        Problem(f"{place} is relative", "-s data.sources", "the nodes start elsewhere: give it from /")
        for place in _data(recipe)
        if not place.is_absolute()
    ]
    if not code.is_absolute():
        problems.append(Problem(f"{str(code)!r} is relative", "--code", "give its path from /"))
    if job.secret and job.target != "k8s" and not Path(job.secret).is_absolute():
        problems.append(Problem(f"{job.secret!r} is relative", "--secret", "give its path from /"))
    return problems


def _data(recipe: Recipe) -> list[Path]:
    return [each.path for each in recipe.data.all_sources() if isinstance(each.path, Path)]


def _slurm_problems(job: Job) -> list[Problem]:
    problems: list[Problem] = []
    if not _PLAIN_PATH.fullmatch(str(job.home)):
        what = f"{str(job.home)!r}: the log lies there, and sbatch reads its path in a way of its own"
        problems.append(Problem(what, "--home", "choose a path of letters, digits and ._,:@=+/- only"))
    if job.queue and not _QUEUE.fullmatch(job.queue):
        problems.append(Problem(f"{job.queue!r} names no partition", "--queue"))
    if job.time and not _TIME.fullmatch(job.time):
        problems.append(Problem(f"{job.time!r} is no time", "--time", "for example 1-12:00:00"))
    for each in job.sbatch:
        key, equals, value = each.partition("=")
        if not _SBATCH_KEY.fullmatch(key):
            problems.append(Problem(f"{each!r} is no option of sbatch", "--sbatch", "such as qos=high"))
        elif key in _SBATCH_OURS:
            problems.append(Problem(f"{key} is not yours to set", "--sbatch", "leave it out"))
        elif equals and not _PLAIN.fullmatch(value):
            problems.append(Problem(f"{value!r} holds characters that sbatch may read otherwise", "--sbatch"))
    return problems


def _k8s_problems(job: Job, wishes: Wishes) -> list[Problem]:
    problems: list[Problem] = []
    if not job.image:
        problems.append(Problem("pods need an image with Lensmith's packages", "--image", "--image NAME:TAG"))
    elif not _IMAGE.fullmatch(job.image):
        problems.append(Problem(f"{job.image!r} names no image", "--image"))
    if job.rdma and not _RESOURCE.fullmatch(job.rdma):
        mend = "as the device plugin calls it, such as rdma/hca_shared_devices_a"
        problems.append(Problem(f"{job.rdma!r} names no resource", "--rdma", mend))
    if job.queue and not (_QUEUE.fullmatch(job.queue) and "," not in job.queue and len(job.queue) <= 63):
        problems.append(Problem(f"{job.queue!r} names no queue", "--queue"))
    if job.memory and job.shm >= job.memory:
        what = f"{job.shm} GiB of /dev/shm count as memory and leave nothing of {job.memory}"
        problems.append(Problem(what, "--shm" if wishes.shm else "--memory"))
    if job.online and not job.secret:
        what = "train.wandb is online, and pods have no key"
        problems.append(Problem(what, "--secret", "--secret NAME of a Secret with WANDB_API_KEY"))
    if job.secret and not _OBJECT.fullmatch(job.secret):
        problems.append(Problem(f"{job.secret!r} names no Secret", "--secret"))
    return problems


def _unseen(job: Job, recipe: Recipe, wishes: Wishes, code: Path) -> list[Problem]:
    """What training reads or writes and no volume of the pods holds."""

    def mounted(path: Path) -> bool:
        return any(path.is_relative_to(volume.path) for volume in job.volumes)

    places = {"--home": job.home, "base.path": moved(recipe.base.path, code)}
    places |= {f"the data, {place.name}": moved(place, code) for place in _data(recipe)}
    mend = "--volume CLAIM:PATH; PATH is the same in every pod"
    problems = [
        Problem(f"{path} is on no volume of the pods", where, mend)
        for where, path in places.items()
        if not mounted(path)
    ]
    # The image may hold these, in its copy of the checkout.
    if wishes.code is None and not mounted(job.script):
        what = f"{ROOT} is on no volume of the pods"
        problems.append(Problem(what, "the checkout", "--code DIR, where the image has it"))
    for where, path in {"the recipe": job.recipe, "train.launcher": job.config}.items():
        if not mounted(path) and not path.is_relative_to(code):
            problems.append(Problem(f"{path} is on no volume of the pods", where, mend))
    return problems
