#!/usr/bin/env bash
# Trains /shared/lensmith/recipes/bank_forms/qwen3_vl_8b_full_8xh100.yaml with 1 process.
# Written by lensmith launch, sha256:31543b0dee8d3c80cecc53c49af5f0ce93a3b373727695ae87f29ddcc0cbdb84
#   bash bank-forms.local.sh
# Ends with 0 trained, 2 wrong input, 4 integrity, 130 stopped (start it again), 1 anything else.
set -euo pipefail
home=/shared/home
python=/shared/lensmith/.venv/bin/python
rank=0
attempt="$(date +%Y%m%dT%H%M%S)-$$"

if [ ! -d "$home/artifacts" ]; then
  echo "node $rank: no Lensmith home at $home: it must be prepared, and mounted here" >&2
  exit 2
fi
mkdir -p "$home/logs"
told="$home/logs/launch-bank-forms-$attempt"
export LENSMITH_ERROR_FILE="$told.$rank.json"
rm -f "$LENSMITH_ERROR_FILE"

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
export DS_ACCELERATOR=cpu CUDA_VISIBLE_DEVICES=
cores="$(nproc)" threads=$((cores / 1))
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
  --config_file /shared/lensmith/recipes/accelerate/cpu.yaml \
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
# accelerate ends with 1 whatever happened; the error of any node says more.
"$python" -m lensmith.failure "$status" "$told".*.json || status=$?
exit "$status"
