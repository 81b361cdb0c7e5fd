#!/usr/bin/env bash
# Everything that needs a GPU, in order, on a machine with a GPU, torch and nvcc but no network:
#
#   tests/on_gpu.sh OUT [--stage NAME]... [--wheel FILE] [--rehearse]
#
#   build       a wheel for this card (skipped with --wheel)
#   tests       all tests; without a GPU they fail
#   sanitizer   compute-sanitizer's memcheck and racecheck on the tests of the ops
#   bench       every op against its alternatives, with the card's copy bandwidth and GEMM rate
#   train       MUSCLE on the digits, resumed once and evaluated
#
# A stage that fails does not stop the next. OUT gets summary.txt with one line a stage (passed, failed
# or unavailable here, and why), the wheel, the benchmark's rows and an archive of logs and runs.
# --rehearse does it all on the CPU, where the sanitizer is unavailable.
set -uo pipefail

STAGES=(build tests sanitizer bench train)
declare -A LIMIT=([build]=300 [tests]=540 [sanitizer]=420 [bench]=300 [train]=180)
PYTHON=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 # the installed package, not the folder we stand in

usage() {
  sed -n '2,4p' "$0" >&2
  exit 2
}

out="" wheel="" rehearse=0 chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --stage) [ $# -ge 2 ] || usage; chosen+=("$2"); shift 2 ;;
    --wheel) [ $# -ge 2 ] || usage; wheel=$(realpath "$2"); shift 2 ;;
    --rehearse) rehearse=1; shift ;;
    -*) usage ;;
    *) [ -z "$out" ] || usage; out=$1; shift ;;
  esac
done
[ -n "$out" ] || usage
[ ${#chosen[@]} -gt 0 ] || chosen=("${STAGES[@]}")
for stage in "${chosen[@]}"; do
  [ -n "${LIMIT[$stage]:-}" ] || { echo "no stage $stage; there are: ${STAGES[*]}" >&2; exit 2; }
done

mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/logs" "$work/runs"
: >"$out/summary.txt"
if [ $rehearse = 1 ]; then device=cpu; else device=cuda; fi
export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}

build() {
  if [ -z "$wheel" ]; then
    "$PYTHON" -m pip wheel --no-deps --no-build-isolation --no-index -w "$out" . || return
    wheel=$(ls "$out"/fastssl-*.whl)
  fi
  "$PYTHON" -m pip install --no-deps --no-index --upgrade --target "$work/site" "$wheel" || return
  "$PYTHON" -c "import fastssl; print(fastssl.build_info())"
}

tests() {
  local strict=1
  [ $rehearse = 0 ] || strict=0
  FASTSSL_REQUIRE_CUDA=$strict "$PYTHON" -m pytest -q --durations=20 -p no:cacheprovider
}

sanitizer() {
  # A sample of every kernel: the tool slows a launch by orders of magnitude.
  local tool
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      "$PYTHON" -m pytest -q -x -p no:cacheprovider tests/ops \
      -k "test_precision and cuda-41x and (10x3 or 100x3)" || return
  done
}

bench() {
  "$PYTHON" -m fastssl.cli bench --device $device --out "$out/bench-$device.csv"
}

train() {
  local fastssl=("$PYTHON" -m fastssl.cli) run=$work/runs/muscle
  local steps=400
  [ $rehearse = 0 ] || steps=40
  "${fastssl[@]}" train muscle --labels 20 --device $device --steps $steps --out "$run" || return
  "${fastssl[@]}" train muscle --device $device --out "$run" --resume || return
  "${fastssl[@]}" evaluate "$run"
}

unavailable() { # why a stage cannot run here, or nothing
  if [ "$1" = sanitizer ]; then
    if [ $rehearse = 1 ]; then echo "rehearsal on the CPU"
    elif ! command -v compute-sanitizer >/dev/null; then echo "no compute-sanitizer"; fi
  fi
}

export -f "${STAGES[@]}"
export PYTHON out wheel work device rehearse
failed=0
for stage in "${chosen[@]}"; do
  log=$work/logs/$stage.log
  started=$SECONDS
  reason=$(unavailable "$stage")
  if [ -n "$reason" ]; then
    verdict="unavailable here ($reason)"
  else
    timeout --kill-after=10 "${LIMIT[$stage]}" bash -c "$stage" >"$log" 2>&1
    case $? in
      0) verdict=passed ;;
      124 | 137) verdict="failed (stopped after ${LIMIT[$stage]} s)" ;;
      *) verdict="failed ($(tail -n 1 "$log" | cut -c1-200))" ;;
    esac
    [ "$verdict" = passed ] || failed=1
  fi
  printf '%-10s %s, %d s\n' "$stage" "$verdict" $((SECONDS - started)) | tee -a "$out/summary.txt"
done
tar -czf "$out/logs.tar.gz" -C "$work" logs runs
exit $failed
