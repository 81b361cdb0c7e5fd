"""Kill training runs at random moments, resume them, and compare them with runs never stopped.

    python tests/training/kill_runs.py --kills 50

Every run is a process of its own, forked from this one so that none spends its life on imports, and
is ended by SIGKILL at a moment drawn over the whole of it. It saves after every step, so that many
a kill hits a checkpoint half-written. Resumed, it must end with the files of the run never stopped:
the last checkpoint (weights, optimiser, generators) byte for byte, and the same metrics.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

from fastssl.algorithms import ALGORITHMS
from fastssl.data.sources import load_source
from fastssl.recipes.config import Config
from fastssl.recipes.experiment import configure
from fastssl.recipes.runs import fit, resume, start
from fastssl.training.record import TEMPORARY, RunFolder, read_metrics

BASES = ("supervised", "mean-teacher", "fixmatch", "muscle", "ccn")
NAMES = [*BASES, *(name for name in ALGORITHMS if "label-propagation" in name)]
SETTINGS = {
    "data.labels": 20,
    "data.validation": 50,
    "data.labeled_rows": 10,
    "data.unlabeled_rows": 20,
    "device": "cpu",
    "log_every": 1,
    "eval.every": 3,
    "checkpoint.every": 1,
    "checkpoint.keep_every": 5,
}


def train(config: Config, path: Path) -> int:
    """Start, or resume, in a forked process; its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        known = (path / "run.json").exists()
        fit(resume(path, config.algorithm_name, {}) if known else start(config, path))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(config: Config, path: Path) -> None:
    """Train to the end."""
    _, status = os.waitpid(train(config, path), 0)
    if status:
        sys.exit(f"{path}: the run failed with status {status}")


def kill(config: Config, path: Path, after: float) -> float | None:
    """Train, and kill it after some seconds; if it has ended before, how long it took."""
    began = time.monotonic()
    pid = train(config, path)
    while (seconds := time.monotonic() - began) < after:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if status:
                sys.exit(f"{path}: the run failed before it was killed")
            return seconds
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else after


def left_behind(path: Path) -> str:
    """What a killed run was at."""
    if not (path / "run.json").exists():
        return "before run.json"
    files = [file.name for file in (path / "checkpoints").glob("*")]
    stems = {name.split(".")[0] for name in files if name.endswith(".safetensors")}
    whole = {name.split(".")[0] for name in files if name.endswith(".json")}
    if any(name.endswith(TEMPORARY) for name in files):
        return "in a checkpoint's file"
    if stems - whole:
        return "between a checkpoint's files"
    return "between checkpoints" if whole else "before the first checkpoint"


def differences(straight: Path, killed: Path, steps: int) -> list[str]:
    """What of a resumed run is not as the run never stopped has it."""
    name = f"checkpoints/step-{steps:08d}.safetensors"
    found = [name] if (straight / name).read_bytes() != (killed / name).read_bytes() else []
    rows = [read_metrics(RunFolder(path).metrics_jsonl) for path in (straight, killed)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    return found + ([] if rows[0] == rows[1] else ["metrics.jsonl"])


def main() -> None:
    """Kill, resume, compare, and say how it went; exit code 1 if one run differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("algorithms", nargs="*", default=NAMES, metavar="ALGORITHM")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no other threads to wait for
    load_source("digits")  # with the imports that it takes
    draw = random.Random(options.seed)
    places: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        straight, lives = {}, {}
        for name in options.algorithms:
            config = configure(name, "digits", SETTINGS | {"steps": options.steps})
            began = time.monotonic()
            straight[name] = config, Path(folder, name)
            finish(*straight[name])
            lives[name] = time.monotonic() - began
        for number in range(options.kills):
            name = options.algorithms[number % len(options.algorithms)]
            config, path = straight[name][0], Path(folder, f"{number}")
            while whole := kill(config, path, after := draw.uniform(0, lives[name])):
                lives[name], path = whole, Path(f"{path}-again")  # the machine is faster now
            place = left_behind(path)
            places[place] += 1
            finish(config, path)
            found = differences(straight[name][1], path, options.steps)
            wrong += bool(found)
            verdict = f"DIFFERS: {', '.join(found)}" if found else "the same"
            print(f"{number + 1:3d}  {name:20s} {after:6.2f} s  {place:30s} {verdict}", flush=True)
    print("; ".join(f"{count} {place}" for place, count in places.most_common()))
    print(f"{options.kills} kills, {wrong} runs differ from the one never stopped")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
