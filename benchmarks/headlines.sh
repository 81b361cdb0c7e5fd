#!/usr/bin/env bash
# Trains the two headline results on a GPU, each from its newest checkpoint on:
#
#   benchmarks/headlines.sh RUNS DATA [MINUTES]
#
#   RUNS     where the runs go, and are found again by the next call
#   DATA     root of the named data sets, with CIFAR-10 in it
#   MINUTES  after which each of the two is stopped, having saved (default: 14)
#
# MUSCLE with Mean Teacher from 250 labels (the paper: 75.86 % accuracy) and CCN from 1000 (12.05 % error),
# in bfloat16 from one CUDA graph a step. A run that is done is kept. The curve is in metrics.jsonl of a run's
# folder (`fastssl report` draws it), the figures of done ones in table.md and cells.csv.
# A rehearsal without a GPU: DEVICE=cpu COMPILE=none.
# FASTSSL is the command (environment; default: .venv/bin/fastssl where there is one, else fastssl).
set -uo pipefail

[ $# -ge 2 ] || {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
  exit 2
}
runs=$1 data=$2 minutes=${3:-14} status=0
here=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${FASTSSL:-}" ]; then
  FASTSSL=fastssl
  [ ! -x "$here/.venv/bin/fastssl" ] || FASTSSL=$here/.venv/bin/fastssl
fi

HOW=(--device "${DEVICE:-cuda}" --precision bf16 --compile "${COMPILE:-graph}")

reproduce() { # TABLE ROW OPTION...
  local table=$1 row=$2 stopped=0
  shift 2
  timeout --signal=TERM "${minutes}m" "$FASTSSL" reproduce "$table" --only "$row" --seeds 1 \
    --data-dir "$data" --out "$runs/${table/\//-}" "$@" || stopped=$?
  # 124: the time was up, and the run has saved.
  [ $stopped = 0 ] || [ $stopped = 124 ] || status=1
}

reproduce muscle/table1 "MUSCLE + MT" --column "cifar10, 250 labels" "${HOW[@]}"
reproduce ccn/table2 ccn --column "cifar10, 1000" "${HOW[@]}"
exit $status
