"""tests/on_gpu.sh says what happened: verdicts, exit status, results, from a Python that acts."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("on_gpu.sh")

# Plays every program that the script calls through $PYTHON, as told by one variable a stage.
ACTOR = """#!/bin/sh
case "$*" in
  *"pip wheel"*) exec sh -c "$ON_WHEEL" ;;
  *"-m pytest"*) exec sh -c "$ON_TESTS" ;;
  *"fastssl bench"*"training_step"* | *"step_profile"*) ;;
  *"fastssl bench"*) exec sh -c "$ON_BENCH" ;;
  *"fastssl train"*"--resume"* | *"fastssl train"*"--compile"*) ;;
  *"fastssl train"*) exec sh -c "$ON_TRAIN" ;;
esac
"""


@pytest.fixture
def rehearse(tmp_path):
    """Runs the script; gives its exit status, its summary and the folder of results."""

    def run(*options: str, carried: bool = True, **acts: str) -> tuple[int, dict[str, str], Path]:
        actor, wheel, out = tmp_path / "python", tmp_path / "fastssl-1.whl", tmp_path / "out"
        actor.write_text(ACTOR)
        actor.chmod(0o755)
        wheel.touch()
        quiet = {"ON_WHEEL": "", "ON_TESTS": "", "ON_BENCH": "", "ON_TRAIN": "exit 130"}
        done = subprocess.run(
            ["bash", SCRIPT, out, "--rehearse", *(["--wheel", wheel] if carried else []), *options],
            env=os.environ | quiet | {"PYTHON": str(actor), "PYTHONPATH": ""} | acts,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == "", done.stderr
        lines = (out / "summary.txt").read_text().splitlines()[1:]
        assert done.stdout.splitlines()[1:] == lines
        stages = {line.split()[0]: line.split(maxsplit=1)[1].rpartition(",")[0] for line in lines}
        return done.returncode, stages, out

    return run


def test_all_pass(rehearse):
    status, stages, out = rehearse()
    rehearsal = "unavailable here (rehearsal on the CPU)"
    assert stages == {
        "build": "passed",
        "tests": "passed",
        "memcheck": rehearsal,
        "racecheck": rehearsal,
        "bench": "passed",
        "step": "passed",
        "train": "passed",
    }
    assert status == 0
    assert sorted(path.name for path in out.iterdir()) == ["logs.tar.gz", "summary.txt"]


def test_a_failure_and_a_timeout_stop_nothing(rehearse):
    status, stages, out = rehearse(
        "--limit", "3", ON_TESTS="echo 2 failed; exit 1", ON_BENCH="echo slow; sleep 30"
    )
    assert stages["tests"] == "failed (exit status 1: 2 failed)"
    assert stages["bench"] == "failed (stopped after 3 s: slow)"
    assert stages["train"] == "passed"
    assert status == 1
    with tarfile.open(out / "logs.tar.gz") as archive:
        assert archive.extractfile("logs/bench.log").read() == b"slow\n"


def test_training_must_stop_at_ctrl_c(rehearse):
    status, stages, _ = rehearse("--stage", "train", ON_TRAIN="exit 0")
    assert stages["train"] == "failed (exit status 1: Ctrl-C did not stop it: exit status 0)"
    assert status == 1


@pytest.mark.parametrize("code", [124, 137])
def test_a_quick_end_is_no_timeout(rehearse, code):
    _, stages, _ = rehearse("--stage", "bench", ON_BENCH=f"echo out of memory; exit {code}")
    assert stages == {"build": "passed", "bench": f"failed (exit status {code}: out of memory)"}


def test_without_a_build_nothing_else_runs(rehearse):
    status, stages, _ = rehearse(carried=False, ON_WHEEL="echo no compiler; exit 3")
    assert stages.pop("build") == "failed (exit status 3: no compiler)"
    assert set(stages.values()) == {"unavailable here (there is no build)"}
    assert status == 1


def test_a_file_too_large_is_left_out(rehearse):
    status, stages, out = rehearse(
        "--stage", "bench", ON_BENCH="truncate -s 16M $(dirname $PYTHONPATH)/results/rows.csv"
    )
    assert status == 0
    assert not (out / "rows.csv").exists()
    assert stages["left"] == "out: rows.csv"


@pytest.mark.parametrize("options", [[], ["out", "--stage", "nonsense"], ["out", "--nonsense"]])
def test_usage(options):
    done = subprocess.run(["bash", SCRIPT, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tests/on_gpu.sh OUT" in done.stderr


def test_a_python_that_is_not_there(tmp_path):
    env = os.environ | {"PYTHON": str(tmp_path / "python")}
    done = subprocess.run(["bash", SCRIPT, tmp_path], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no program" in done.stderr
