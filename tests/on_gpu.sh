#!/usr/bin/env bash
# Everything that needs a GPU, on a machine with a GPU, torch, nvcc and pytest, but no network:
#
#   tests/on_gpu.sh OUT [--stage NAME]... [--wheel FILE] [--limit SECONDS] [--rehearse]
#
#   build      a wheel for this card, installed for the other stages alone; always first
#   tests      all tests, those on the GPU first; without a GPU they fail
#   memcheck   compute-sanitizer on a sample of the ops' tests: accesses out of bounds
#   racecheck  compute-sanitizer on the same sample: races in shared memory
#   bench      every op against its alternatives, in device time and in wall time, with the card's copy
#              bandwidth and GEMM rate; then the goals' again with torch.compile and in bfloat16
#   step       a training step against plain loops, its profile eager and as one CUDA graph
#   train      MUSCLE on the digits, stopped by Ctrl-C, resumed and evaluated; with Mean Teacher by one
#              CUDA graph a step (torch.compile in a rehearsal)
#
#   --stage NAME     this stage only; may be repeated. build + tests, memcheck + racecheck, bench + step
#                    and train each end within 10 minutes.
#   --wheel FILE     install this wheel instead of building one
#   --limit SECONDS  of every stage, instead of its own
#   --rehearse       on the CPU: no sanitizer, fewer rounds and steps, four times the limits
#   PYTHON           the Python to use (environment); by default .venv/bin/python where there is one,
#                    else python3. It needs torch, the test extra and what fastssl itself needs.
#   FASTSSL_COMMIT   the commit that the rows of the benchmark name (environment), where git cannot say
#
# A stage that fails does not stop the next. OUT gets summary.txt (a line a stage: passed, failed or
# unavailable here, and why), the wheel, the benchmark's rows and an archive of logs and runs: at most 8
# files of at most 15 MiB. The exit status is 1 if a stage failed.
set -uo pipefail

STAGES=(build tests memcheck racecheck bench step train)
declare -A LIMIT=([build]=140 [tests]=440 [memcheck]=190 [racecheck]=190 [bench]=360 [step]=180 [train]=180)
LARGEST_FILE=$((15 * 1024 * 1024))
UNAVAILABLE=69 # a stage's exit status when the machine lacks what it needs, EX_UNAVAILABLE of sysexits.h

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

wrong_usage() {
  echo "$1" >&2
  usage >&2
  exit 2
}

out="" wheel="" rehearse=0 limit="" chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --stage | --wheel | --limit)
      [ $# -ge 2 ] || wrong_usage "$1 needs a value"
      case $1 in
        --stage) chosen+=("$2") ;;
        --wheel) wheel=$(realpath "$2") ;;
        --limit) limit=$2 ;;
      esac
      shift 2
      ;;
    --rehearse) rehearse=1 && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) wrong_usage "no option $1" ;;
    *)
      [ -z "$out" ] || wrong_usage "one OUT, not also $1"
      out=$1
      shift
      ;;
  esac
done
[ -n "$out" ] || wrong_usage "where to? OUT is missing"
for stage in "${chosen[@]}"; do
  [ -n "${LIMIT[$stage]:-}" ] || wrong_usage "no stage $stage; there are: ${STAGES[*]}"
done

mkdir -p "$out"
out=$(realpath "$out")
[ -z "${PYTHON:-}" ] || command -v "$PYTHON" >/dev/null || wrong_usage "no program $PYTHON (PYTHON)"
if [[ ${PYTHON:-} = */* ]]; then # not realpath: the python of a venv is a link
  PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
fi
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ ! -x .venv/bin/python ] || PYTHON=$PWD/.venv/bin/python
fi
if [ $rehearse = 1 ]; then device=cpu; else device=cuda; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/logs" "$work/runs" "$work/site" "$work/results"

# Only this build of fastssl: neither the folder we stand in nor an editable install, whose finder goes
# before PYTHONPATH.
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
cat >"$work/site/sitecustomize.py" <<'EOF'
import sys

sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
EOF

if [ -z "${FASTSSL_COMMIT:-}" ]; then
  FASTSSL_COMMIT=$(git describe --always --dirty=+ --abbrev=10 --exclude='*' 2>/dev/null)
fi
export FASTSSL_COMMIT

unavailable() {
  echo "$1"
  exit $UNAVAILABLE
}

build() {
  if [ -z "$wheel" ]; then
    if [ $rehearse = 0 ] && [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
      local capability='import torch; print("%d.%d" % torch.cuda.get_device_capability())'
      TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c "$capability") || return
      export TORCH_CUDA_ARCH_LIST
    fi
    "$PYTHON" -m pip wheel --no-deps --no-build-isolation --no-index -w "$work/results" . || return
    wheel=$(ls "$work"/results/fastssl-*.whl)
  fi
  "$PYTHON" -m pip install --no-deps --no-index --upgrade --target "$work/site" "$wheel" || return
  "$PYTHON" -c "
import fastssl
assert fastssl.__file__.startswith('$work/site'), fastssl.__file__
print(fastssl.build_info())"
}

tests() {
  local on_gpu="cuda and not cuda_on_cpu" status=0
  export FASTSSL_REQUIRE_CUDA=$((1 - rehearse))
  "$PYTHON" -m pytest -q --durations=20 -p no:cacheprovider -k "$on_gpu" || status=$?
  "$PYTHON" -m pytest -q --durations=20 -p no:cacheprovider -k "not ($on_gpu)" || status=$?
  return $status
}

# Each tool must first find the bug that sanitizer_control.cu holds for it.
sanitize() {
  [ $rehearse = 0 ] || unavailable "rehearsal on the CPU"
  local program
  for program in compute-sanitizer nvcc; do
    command -v $program >/dev/null || unavailable "no $program"
  done
  local control=$work/control found=7 status=0
  local tool=(compute-sanitizer --tool "$1" --error-exitcode $found --target-processes all
    --require-cuda-init=no --report-api-errors no --kernel-name kernel_substring=fastssl)
  nvcc -arch=native -o "$control" tests/sanitizer_control.cu || return
  "$control" "$1" || unavailable "the control does not even run on this machine"
  "${tool[@]}" "$control" "$1" || status=$?
  [ $status = $found ] || unavailable "compute-sanitizer $1 does not find a planted bug"
  # torch's own allocator would hide an access beyond the end of a tensor.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 FASTSSL_REQUIRE_CUDA=1 "${tool[@]}" \
    "$PYTHON" -m pytest -q -x -p no:cacheprovider tests/ops --sample 8 \
    -k "cuda and not cuda_on_cpu and (precision or extremes or spike or 16_bytes)"
}

memcheck() { sanitize memcheck; }
racecheck() { sanitize racecheck; }

# What takes long comes last: rows are written as they are measured, and a stage that runs out of its
# time keeps them.
bench() {
  measure --no-compile &&
    measure --no-compile --dtype bfloat16 mutual_information complementary_correction augment &&
    measure mutual_information complementary_correction &&
    measure entropy kl_divergence softmax_mse pseudo_label_cross_entropy weighted_cross_entropy nt_xent
}

measure() {
  local rounds=15
  [ $rehearse = 0 ] || rounds=3
  "$PYTHON" -m fastssl bench --device $device --rounds $rounds \
    --out "$work/results/bench-$device.csv" "$@"
}

step() {
  local steps=200 compiled=graph how
  [ $rehearse = 0 ] || { steps=5 && compiled=inductor; }
  for how in $compiled none; do
    "$PYTHON" -m fastssl.benchmarks.studies.step_profile --device $device --precision bf16 \
      --compile $how --steps $steps || return
  done
  measure training_step --dtype bfloat16 --case 128x32
}

train() {
  local fastssl=("$PYTHON" -m fastssl) run=$work/runs/muscle steps=2000 compile=graph status=0 stopper
  [ $rehearse = 0 ] || { steps=40 && compile=inductor; }
  # Ctrl-C's signal, as soon as the first steps are logged.
  { until [ -s "$run/metrics.jsonl" ]; do sleep 0.05; done && kill -INT "$(cat "$work/pid")"; } &
  stopper=$!
  bash -c 'echo $$ >"$0"; exec "$@"' "$work/pid" "${fastssl[@]}" train muscle --labels 20 \
    --device $device --steps $steps --set log_every=5 --out "$run" || status=$?
  kill $stopper 2>/dev/null
  [ $status = 130 ] || { echo "Ctrl-C did not stop it: exit status $status" && return 1; }
  "${fastssl[@]}" train muscle --device $device --out "$run" --resume || return
  "${fastssl[@]}" evaluate "$run" || return
  "${fastssl[@]}" train muscle --base mean-teacher --labels 20 --device $device --steps $steps \
    --precision bf16 --compile $compile --out "$work/runs/compiled"
}

machine() {
  "$PYTHON" -c '
import platform, torch
where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
print(f"{where}, Python {platform.python_version()}, torch {torch.__version__}", end="")'
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=driver_version --format=csv,noheader | sed 's/^/, driver /' | tr -d '\n'
  fi
  if command -v nvcc >/dev/null; then
    nvcc --version | sed -n 's/.*release \([0-9.]*\).*/, nvcc \1/p' | tr -d '\n'
  fi
  echo ", commit ${FASTSSL_COMMIT:-unknown}"
}

# What a stage's exit status means, after how many seconds: passed, failed or unavailable here, and why.
verdict() {
  local status=$1 seconds=$2 allowed=$3 log=$4 last
  last=$(tail -n 1 "$log" | tr -d '\r' | cut -c1-200)
  if [ "$status" = 0 ]; then
    echo passed
  elif [ "$status" = $UNAVAILABLE ]; then
    echo "unavailable here ($last)"
  elif [ "$seconds" -ge "$allowed" ] && { [ "$status" = 124 ] || [ "$status" = 137 ]; }; then
    echo "failed (stopped after $allowed s: $last)"
  else
    echo "failed (exit status $status: $last)"
  fi
}

run_stage() {
  local stage=$1 log=$work/logs/$1.log started=$SECONDS status=0 said
  local allowed=${limit:-$((LIMIT[$stage] * (1 + 3 * rehearse)))}
  timeout --kill-after=10 "$allowed" bash -c "$stage" >"$log" 2>&1 </dev/null || status=$?
  said=$(verdict $status $((SECONDS - started)) "$allowed" "$log")
  report "$stage" "$said" $((SECONDS - started))
  [[ $said != failed* ]]
}

report() {
  printf '%-10s %s, %d s\n' "$1" "$2" "$3" | tee -a "$work/results/summary.txt"
}

pack() {
  local log file
  for log in "$work"/logs/*.log; do
    tail -c $LARGEST_FILE "$log" >"$log.end" && mv "$log.end" "$log"
  done
  tar -czf "$work/results/logs.tar.gz" -C "$work" logs runs
  if [ "$(stat -c %s "$work/results/logs.tar.gz")" -gt $LARGEST_FILE ]; then
    tar -czf "$work/results/logs.tar.gz" -C "$work" logs
  fi
  for file in "$work"/results/*; do
    if [ "$(stat -c %s "$file")" -gt $LARGEST_FILE ]; then
      echo "left out: $(basename "$file"), $(stat -c %s "$file") bytes" | tee -a "$work/results/summary.txt"
    else
      cp "$file" "$out/"
    fi
  done
  cp "$work/results/summary.txt" "$out/"
}

export -f "${STAGES[@]}" sanitize unavailable measure
export PYTHON wheel work device rehearse UNAVAILABLE
failed=0 built=1
machine 2>/dev/null | tee "$work/results/summary.txt"
run_stage build || { failed=1 && built=0; }
for stage in "${STAGES[@]:1}"; do
  [ ${#chosen[@]} = 0 ] || [[ " ${chosen[*]} " = *" $stage "* ]] || continue
  if [ $built = 1 ]; then
    run_stage "$stage" || failed=1
  else
    report "$stage" "unavailable here (there is no build)" 0
  fi
done
pack
exit $failed
