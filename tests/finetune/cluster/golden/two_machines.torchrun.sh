#!/usr/bin/env bash
# Trains /shared/lensmith/recipes/bank_forms/qwen3_vl_8b_full_8xh100.yaml with 8 processes on each of 2 machines.
# Written by lensmith launch, sha256:901cf7fb3ae2ce088d5c7ea408a0e763b83fd5a42739594ecfb387aa05368927
#   bash bank-forms.torchrun.sh RANK HEAD WORD
# RANK: 0 on the first machine, then 1 and so on. HEAD: the first one's address, for all.
# WORD: a word of yours, the same on all machines and new for each start.
# Home, recipe, base and data are the same files at the same paths on all machines.
# Ends with 0 trained, 2 wrong input, 4 integrity, 130 stopped (start it again), 1 anything else.
set -euo pipefail
home=/shared/home
python=/shared/lensmith/.venv/bin/python
if [[ $# != 3 || ! $1 =~ ^[0-9]+$ || ! $3 =~ ^[A-Za-z0-9._-]+$ ]] || [ "$1" -ge 2 ]; then
  echo "usage: bash $0 RANK HEAD WORD" >&2
  echo "RANK: 0 to 1; HEAD: address of the machine of rank 0; WORD: on all the same, new for each start" >&2
  exit 2
fi
rank="$1" head="$2" attempt="$3"
port=29500

if [ ! -d "$home/artifacts" ]; then
  echo "node $rank: no Lensmith home at $home: it must be prepared, and on every node the same shared folder, at this very path" >&2
  exit 2
fi
mkdir -p "$home/logs"
told="$home/logs/launch-bank-forms-$attempt"
export LENSMITH_ERROR_FILE="$told.$rank.json"
rm -f "$LENSMITH_ERROR_FILE"

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
# A node of another start, left over, does not join this one.
export PET_RDZV_ID="bank-forms-$attempt"
cores="$(nproc)" threads=$((cores / 8))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"

child='' stopped=''
stop() {
  stopped=1
  [ -n "$child" ] || return 0
  # The processes that train, not accelerate: it would leave them 30 seconds, or none.
  local workers=()
  { read -r -a workers <"/proc/$child/task/$child/children"; } 2>/dev/null || true
  if [ "${#workers[@]}" = 0 ]; then kill -KILL "$child" 2>/dev/null || true; return 0; fi
  kill -TERM "${workers[@]}" 2>/dev/null || true
}
trap stop TERM INT

"$python" -m accelerate.commands.launch --quiet \
  --config_file /shared/lensmith/recipes/accelerate/deepspeed_zero3_nodes.yaml \
  --machine_rank "$rank" --main_process_ip "$head" --main_process_port "$port" \
  --rdzv_backend static --rdzv_conf timeout=1800 --same_network \
  --deepspeed_multinode_launcher standard \
  /shared/lensmith/scripts/train.py /shared/lensmith/recipes/bank_forms/qwen3_vl_8b_full_8xh100.yaml \
  --home /shared/home \
  -s train.epochs=3.0 &
child=$!
[ -z "$stopped" ] || stop
# A signal ends `wait`, not what it waits for.
while :; do
  if wait "$child"; then status=0; else status=$?; fi
  kill -0 "$child" 2>/dev/null || break
done
# Saved and stopped, here or because another node was told to, accelerate ends with 0.
if [ "$status" = 0 ] && [ ! -e "$LENSMITH_ERROR_FILE" ]; then exit 0; fi
if [ -n "$stopped" ]; then
  echo "node $rank: stopped; started again, it goes on from the last checkpoint" >&2
  exit 130
fi
[ "$status" = 0 ] || sleep 3
# accelerate ends with 1 whatever happened; the error of any node says more.
"$python" -m lensmith.failure "$status" "$told".*.json || status=$?
exit "$status"
