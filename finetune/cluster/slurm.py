"""The batch script for Slurm.

Options and signals as sbatch(1), srun(1) and scancel(1) of Slurm 22.05 and later describe them: with
`--signal=B:` only the batch shell is warned; `scancel --signal` reaches the processes of the steps, not the
shell; srun takes a task's CPUs from its own option; `SLURM_RESTART_COUNT` says how often a job was put back.
"""

from __future__ import annotations

from finetune.cluster.job import Job
from finetune.cluster.node import node_program, quoted
from finetune.cluster.seal import SEAL

# Seconds for Slurm to end a job that it preempts: one that ends by itself before is not put back.
_PREEMPTION_S = 600
_END = "END_OF_NODE"


def slurm_script(job: Job) -> str:
    """A script for sbatch: one task a node, which starts the node's processes."""
    place = ['rank="${SLURM_NODEID:?}" head="$1" port="$2" attempt="$3"']
    node = node_program(job, place, signalled_whole=True)
    port = str(job.launcher.port) if job.launcher.port else "$((20000 + SLURM_JOB_ID % 10000))"
    step = [
        f"srun --nodes={job.nodes} --ntasks={job.nodes} --ntasks-per-node=1 --cpus-per-task={job.cpus}",
        '--kill-on-bad-exit=1 bash -c "$node" node "$head" "$port" "$attempt" &',
    ]
    lines = [
        "#!/bin/bash",
        f"# Trains {job.recipe} on {_nodes(job)}.",
        SEAL,
        f"#   mkdir -p {job.home}/logs && sbatch {job.name}.sbatch",
        "# The home, the recipe, the base and the data are the same files at the same paths on all nodes.",
        "# Ends with 0 trained, 2 wrong input, 4 integrity, 130 stopped, 1 anything else.",
        *(f"#SBATCH --{option}" for option in _options(job)),
        "set -euo pipefail",
        "",
        "# One task a node runs this. What it says of its end goes to the home, where all nodes read it.",
        # Nothing in it can end it early: no value holds the end of a line.
        f"node=$(cat <<'{_END}'",
        node.rstrip("\n"),
        _END,
        ")",
        "",
        'mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        f'if [ "${{#hosts[@]}}" != {job.nodes} ]; then',
        f'  echo "${{#hosts[@]}} nodes were given, the launcher config is for {job.nodes}" >&2',
        "  exit 2",
        "fi",
        'head="${hosts[0]}"',
        "# Below the ports that the kernel gives away; another job on these nodes has another.",
        f"port={port}",
        'restarts="${SLURM_RESTART_COUNT:-0}"',
        'attempt="$SLURM_JOB_ID.$restarts"',
        "",
        "again=''",
        """trap 'again=1; scancel --signal=TERM "$SLURM_JOB_ID" || true' USR1""",
        "trap : TERM",
        " \\\n  ".join(step),
        "step=$!",
        "while :; do",
        '  if wait "$step"; then status=0; else status=$?; fi',
        '  kill -0 "$step" 2>/dev/null || break',
        "done",
        "",
        'if [ "$status" = 0 ]; then exit 0; fi',
        'if [ -n "$again" ]; then',
        f'  if [ "$restarts" -ge {job.restarts} ]; then',
        f'    echo "the time is over, and the job was put back {job.restarts} times: not again" >&2',
        "    exit 130",
        "  fi",
        '  echo "the time is over: the job is put back and goes on from the last checkpoint" >&2',
        '  scontrol requeue "$SLURM_JOB_ID" || true',
        "  exit 130",
        "fi",
        "# srun's own code may be that of a node which it has killed because another one ended first.",
        f'{quoted(job.python)} -m lensmith.failure "$status" {quoted(job.home)}'
        f'/logs/launch-{job.name}-"$attempt".*.json || status=$?',
        'if [ "$status" = 130 ]; then',
        "  # Cancelled, or preempted: Slurm puts a preempted job back only where it has to end it itself.",
        f"  sleep {_PREEMPTION_S} &",
        '  wait "$!" || true',
        "  exit 130",
        "fi",
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def seconds_of(time: str) -> int:
    """Seconds of sbatch's `--time`: it begins with hours behind a hyphen, or where it has three parts; else
    with minutes (sbatch(1))."""
    days, hyphen, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    units = (3600, 60, 1) if hyphen or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(n * unit for n, unit in zip(parts, units, strict=False))


def _nodes(job: Job) -> str:
    each = f"{job.gpus} GPUs" if job.gpus else f"{job.processes} processes"
    return f"{job.nodes} nodes of {each}" if job.nodes > 1 else f"one node with {each}"


def _options(job: Job) -> list[str]:
    options = [f"job-name={job.name}", f"nodes={job.nodes}", "ntasks-per-node=1"]
    options += [f"cpus-per-task={job.cpus}"]
    options += [f"gpus-per-node={job.gpus}"] if job.gpus else []
    options += [f"mem={job.memory}G"] if job.memory else []
    options += [f"partition={job.queue}"] if job.queue else []
    options += [f"time={job.time}"] if job.time else []
    options += [
        # Warned before the time is over; sbatch(1): up to a minute earlier than asked.
        f"signal=B:USR1@{job.grace}",
        "requeue",
        f"output={job.home}/logs/{job.name}-%j.log",
        "open-mode=append",
    ]
    return [*options, *job.sbatch]
