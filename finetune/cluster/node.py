"""What a node runs, as a bash program: the training's `accelerate launch`, its signals, its exit code."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from finetune.cluster.job import Job

# Seconds in which the other nodes have to be there: pods wait for their turn one by one.
_JOIN_S = 1800
# Seconds in which the node that knows why it failed has told so; the others only see it leave.
_TELL_S = 3
_ACCELERATE = "accelerate.commands.launch"
_SIGNALS = [
    "",
    "child='' stopped=''",
    "stop() {",
    "  stopped=1",
    '  [ -n "$child" ] || return 0',
    "  # The processes that train, not accelerate: it would leave them 30 seconds, or none.",
    "  local workers=()",
    '  { read -r -a workers <"/proc/$child/task/$child/children"; } 2>/dev/null || true',
    '  if [ "${#workers[@]}" = 0 ]; then kill -KILL "$child" 2>/dev/null || true; return 0; fi',
    '  kill -TERM "${workers[@]}" 2>/dev/null || true',
    "}",
    "trap stop TERM INT",
]


def quoted(value: object) -> str:
    """`value` as one word of bash, whatever it holds."""
    return shlex.quote(str(value))


def accelerate_words(job: Job) -> list[str]:
    """The command that starts the training on one node, a word each; `$rank`, `$head` and `$port` are bash's.

    Several nodes meet as torchrun's static rendezvous: the node of rank 0 listens at a name that all know.
    """
    words = [f'"$python" -m {_ACCELERATE} --quiet', f"--config_file {quoted(job.config)}"]
    if job.nodes > 1:
        words += [
            '--machine_rank "$rank" --main_process_ip "$head" --main_process_port "$port"',
            f"--rdzv_backend static --rdzv_conf timeout={_JOIN_S} --same_network",
        ]
        if job.launcher.kind == "DEEPSPEED":
            # Else accelerate has DeepSpeed log in to the other nodes with pdsh.
            words.append("--deepspeed_multinode_launcher standard")
    elif job.launcher.port is None and (job.processes > 1 or job.launcher.zero_stage):
        # accelerate finds a free one: two trainings may share a machine.
        words.append("--main_process_port 0")
    words += [f"{quoted(job.script)} {quoted(job.recipe)}", f"--home {quoted(job.home)}"]
    words += [f"-s {quoted(setting)}" for setting in job.settings]
    return words


def node_program(job: Job, place: Sequence[str], *, signalled_whole: bool = False, log: bool = False) -> str:
    """The program of one node; it ends with the training's exit code, 130 where it was told to stop.

    place: lines that set `rank`, `head`, `port` and `attempt` (the latter a word that each start has for
    itself). signalled_whole: who stops it signals all its processes, accelerate too, which stays.
    log: what it prints goes to a file in the home, too.
    """
    lines = ["set -euo pipefail", f"home={quoted(job.home)}", f"python={quoted(job.python)}", *place]
    lines += _home(job)
    if log:
        lines += _log(job)
    lines += _environment(job)
    lines += _SIGNALS
    words = accelerate_words(job)
    command = " \\\n  ".join(words)
    if signalled_whole:
        # torchrun would handle it all the same, and leave them 30 seconds. It overwrites the
        # TORCHELASTIC_ variable of this name by what its own option, or this one, says.
        lines += ["", "export PET_SIGNALS_TO_HANDLE=SIGINT,SIGHUP,SIGQUIT"]
        command = command.replace(_ACCELERATE, f"lensmith.undisturbed {_ACCELERATE}", 1)
    lines += ["", command + " &", "child=$!"]
    lines += [
        '[ -z "$stopped" ] || stop',
        "# A signal ends `wait`, not what it waits for.",
        "while :; do",
        '  if wait "$child"; then status=0; else status=$?; fi',
        '  kill -0 "$child" 2>/dev/null || break',
        "done",
        "# Saved and stopped, here or because another node was told to, accelerate ends with 0.",
        'if [ "$status" = 0 ] && [ ! -e "$LENSMITH_ERROR_FILE" ]; then exit 0; fi',
        'if [ -n "$stopped" ]; then',
        '  echo "node $rank: stopped; started again, it goes on from the last checkpoint" >&2',
        "  exit 130",
        "fi",
        *([f'[ "$status" = 0 ] || sleep {_TELL_S}'] if job.nodes > 1 else []),
        "# accelerate ends with 1 whatever happened; the error of any node says more.",
        '"$python" -m lensmith.failure "$status" "$told".*.json || status=$?',
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _home(job: Job) -> list[str]:
    nodes = "on every node the same shared folder, at this very path" if job.nodes > 1 else "mounted here"
    return [
        "",
        'if [ ! -d "$home/artifacts" ]; then',
        f'  echo "node $rank: no Lensmith home at $home: it must be prepared, and {nodes}" >&2',
        "  exit 2",
        "fi",
        'mkdir -p "$home/logs"',
        f'told="$home/logs/launch-{job.name}-$attempt"',
        'export LENSMITH_ERROR_FILE="$told.$rank.json"',
        'rm -f "$LENSMITH_ERROR_FILE"',
    ]


def _log(job: Job) -> list[str]:
    return [
        "# The scheduler drops what a pod has printed together with the pod.",
        f'exec > >(exec tee -a "$home/logs/launch-{job.name}-node-$rank.log") 2>&1',
        "tee=$!",
        """trap 'exec >&- 2>&-; wait "$tee" || true' EXIT""",
    ]


def _environment(job: Job) -> list[str]:
    lines = ["", "export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1"]
    if job.launcher.cpu:
        # DeepSpeed and accelerate each look for a GPU of their own accord.
        lines.append("export DS_ACCELERATOR=cpu CUDA_VISIBLE_DEVICES=")
    if job.nodes > 1:
        lines.append("# A node of another start, left over, does not join this one.")
        lines.append(f'export PET_RDZV_ID="{job.name}-$attempt"')
    threads = str(max(1, job.cpus // job.processes))
    if job.target in ("local", "torchrun"):
        lines.append(f'cores="$(nproc)" threads=$((cores / {job.processes}))')
        threads = "$((threads > 0 ? threads : 1))"
    lines.append(f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{threads}}}"')
    if job.secret and job.target != "k8s":
        lines += [
            f"secret={quoted(job.secret)}",
            'if [ ! -r "$secret" ] || [ -n "$(find -L "$secret" -maxdepth 0 -perm /077)" ]; then',
            '  echo "node $rank: $secret must be a file that only you can read: chmod 600" >&2',
            "  exit 2",
            "fi",
            "set -a",
            "# shellcheck source=/dev/null",
            '. "$secret"',
            "set +a",
        ]
    return lines
