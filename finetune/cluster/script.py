"""The scripts for machines that people log in to: one, or several that meet by torchrun's rendezvous."""

from __future__ import annotations

from finetune.cluster.job import PORT, Job
from finetune.cluster.node import node_program
from finetune.cluster.seal import SEAL

_CODES = "# Ends with 0 trained, 2 wrong input, 4 integrity, 130 stopped (start it again), 1 anything else."


def local_script(job: Job) -> str:
    """A script that trains on the machine it is started on."""
    place = ["rank=0", 'attempt="$(date +%Y%m%dT%H%M%S)-$$"']
    return "\n".join([*_header(job, ""), node_program(job, place)])


def torchrun_script(job: Job) -> str:
    """A script to be started once on each of several machines, with its rank and the first one's address."""
    place = [
        'if [[ $# != 3 || ! $1 =~ ^[0-9]+$ || ! $3 =~ ^[A-Za-z0-9._-]+$ ]] || [ "$1" -ge '
        + f"{job.nodes} ]; then",
        '  echo "usage: bash $0 RANK HEAD WORD" >&2',
        f'  echo "RANK: 0 to {job.nodes - 1}; HEAD: address of the machine of rank 0; WORD: on all the same,'
        ' new for each start" >&2',
        "  exit 2",
        "fi",
        'rank="$1" head="$2" attempt="$3"',
        f"port={job.launcher.port or PORT}",
    ]
    return "\n".join([*_header(job, " RANK HEAD WORD"), node_program(job, place)])


def _header(job: Job, usage: str) -> list[str]:
    machines = f" on each of {job.nodes} machines" if job.nodes > 1 else ""
    processes = f"{job.processes} process{'' if job.processes == 1 else 'es'}"
    lines = [
        "#!/usr/bin/env bash",
        f"# Trains {job.recipe} with {processes}{machines}.",
        SEAL,
        f"#   bash {job.name}.{job.target}.sh{usage}",
    ]
    if job.nodes > 1:
        lines += [
            "# RANK: 0 on the first machine, then 1 and so on. HEAD: the first one's address, for all.",
            "# WORD: a word of yours, the same on all machines and new for each start.",
            "# Home, recipe, base and data are the same files at the same paths on all machines.",
        ]
    return [*lines, _CODES]
