"""`fastssl reproduce`: runs that are done stay, one that was stopped goes on, the table says so."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastssl.data.batches import TwoStreams
from fastssl.recipes import tables
from fastssl.recipes.tables.cells import Cell, Table

CHANGES = {"data.labels": 20, "steps": 4, "data.labeled_rows": 10, "data.unlabeled_rows": 10}
# A process with the small table, killed before its second run's second step.
KILLED = """
import os, signal, torch
from fastssl.cli.main import main
from fastssl.data.batches import TwoStreams
from fastssl.recipes import tables
from test_reproduce import SMALL
tables.TABLES["small"] = SMALL
at = TwoStreams.at
def killed(self, step):
    if step == 1 and len(self.policies) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return at(self, step)
TwoStreams.at = killed
torch.set_num_threads(int(os.environ["THREADS"]))
main(["reproduce", "small", "--smoke", "--out", os.environ["OUT"]])
"""


def cell(name, paper="", **values):
    return Cell(name, "20 labels", name, "digits", CHANGES, paper, **values)


SMALL = Table("A small table", 3, (cell("supervised"), cell("muscle", "95.0 ± 0.1")))


@pytest.fixture(autouse=True)
def small_table(monkeypatch):
    """Two methods, one setting, three runs each of 4 steps."""
    monkeypatch.setitem(tables.TABLES, "small", SMALL)


def modification_times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("step-*.safetensors")}


def test_a_table_is_made_and_made_again_for_nothing(fastssl, tmp_path):
    out = tmp_path / "t"
    result = fastssl("reproduce", "small", "--seeds", 2, "--out", out)
    assert result.exit_code == 0, result.output
    before = modification_times(out)
    assert len(before) == 4
    lines = (out / "table.md").read_text().splitlines()
    assert lines[:2] == ["# A small table", ""]
    assert lines[2] == "| | 20 labels |"
    assert "(n = 2)" in lines[4]
    assert lines[5].endswith("(n = 2), paper 95.0 ± 0.1 |")
    rows = list(csv.DictReader((out / "cells.csv").open()))
    assert [(row["row"], row["seed"], row["steps"]) for row in rows] == [
        *(("supervised", "0", "4"), ("supervised", "1", "4")),
        *(("muscle", "0", "4"), ("muscle", "1", "4")),
    ]

    again = fastssl("reproduce", "small", "--seeds", 2, "--out", out)
    assert again.stdout.count(": done") == 4
    assert modification_times(out) == before


def test_it_goes_on_after_an_interruption(fastssl, tmp_path, monkeypatch):
    straight, out = tmp_path / "straight", tmp_path / "t"
    assert fastssl("reproduce", "small", "--seeds", 1, "--out", straight).exit_code == 0
    at = TwoStreams.at

    def interrupted(self, step):
        if step == 1 and len(self.policies) > 1:  # in the second run, muscle's
            signal.raise_signal(signal.SIGINT)
        return at(self, step)

    monkeypatch.setattr(TwoStreams, "at", interrupted)
    stopped = fastssl("reproduce", "small", "--seeds", 1, "--out", out)
    assert stopped.exit_code == 130
    assert "the same command again goes on" in stopped.stderr
    monkeypatch.setattr(TwoStreams, "at", at)
    assert "| muscle | – |" not in (straight / "table.md").read_text()
    assert "| muscle | –, paper 95.0 ± 0.1 |" in (out / "table.md").read_text()

    result = fastssl("reproduce", "small", "--seeds", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert "seed 0: done" in result.stdout
    assert "muscle, 20 labels, seed 0: from step 2" in result.stdout
    assert (out / "cells.csv").read_text() == (straight / "cells.csv").read_text()


def test_a_smoke_run_is_killed_and_completes(fastssl, tmp_path):
    straight, out = tmp_path / "straight", tmp_path / "t"
    options = ("reproduce", "small", "--smoke", "--out")
    assert fastssl(*options, straight).exit_code == 0
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {
        "PYTHONPATH": os.pathsep.join(folders),
        "OUT": str(out),
        "THREADS": str(torch.get_num_threads()),
    }
    killed = subprocess.run(
        [sys.executable, "-"],
        input=KILLED.encode(),
        env={**os.environ, **settings},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = modification_times(out)
    assert [path.parent.parent.name for path in before] == ["supervised-20-labels-seed-0"]

    result = fastssl(*options, out)
    assert result.exit_code == 0, result.output
    assert "[1/2] supervised, 20 labels, seed 0: done" in result.stdout
    assert "[2/2] muscle, 20 labels, seed 0: from step 0" in result.stdout
    assert modification_times(out).items() > before.items()
    for name in ("table.md", "cells.csv"):
        assert (out / "smoke" / name).read_text() == (straight / "smoke" / name).read_text()


def test_a_smoke_table_is_cut_and_stands_apart(fastssl, tmp_path, monkeypatch):
    rows = (cell("supervised"), cell("label-propagation"))
    monkeypatch.setitem(tables.TABLES, "small", Table("A small table", 3, rows))
    assert fastssl("reproduce", "small", "--smoke", "--out", tmp_path).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["smoke"]
    assert (tmp_path / "smoke" / "table.md").read_text().startswith("# SMOKE, 3 steps")
    found = list(csv.DictReader((tmp_path / "smoke" / "cells.csv").open()))
    assert [(row["seed"], row["steps"]) for row in found] == [("0", "3"), ("0", "6")]
    run = json.loads((tmp_path / "smoke" / "supervised-20-labels-seed-0" / "run.json").read_text())
    data = run["config"]["data"]
    assert (data["images"], data["labeled_rows"], data["unlabeled_rows"]) == (512, 8, 8)
    split = tmp_path / "smoke" / "supervised-20-labels-seed-0" / "split.json"
    assert len(json.loads(split.read_text())["unlabeled"]) == 512 - 20


def test_two_figures_of_one_run(fastssl, tmp_path, monkeypatch):
    both = (
        cell("supervised", setting="20"),
        Cell("supervised", "error", "supervised", "digits", CHANGES, "", "error", "20"),
    )
    monkeypatch.setitem(tables.TABLES, "small", Table("A small table", 1, both))
    result = fastssl("reproduce", "small", "--out", tmp_path / "t")
    assert result.exit_code == 0, result.output
    assert "[1/1]" in result.stdout
    accuracy, error = csv.DictReader((tmp_path / "t" / "cells.csv").open())
    assert float(accuracy["value"]) + float(error["value"]) == pytest.approx(1)
    assert (accuracy["figure"], error["figure"]) == ("accuracy", "error")


def test_a_run_without_a_checkpoint_starts_anew(fastssl, tmp_path):
    out = tmp_path / "t"
    options = ("reproduce", "small", "--only", "supervised", "--seeds", 1, "--out", out)
    assert fastssl(*options).exit_code == 0
    before = (out / "cells.csv").read_text()
    shutil.rmtree(out / "supervised-20-labels-seed-0" / "checkpoints")
    assert "from step 0" in fastssl(*options).stdout
    assert (out / "cells.csv").read_text() == before


def test_one_row_and_a_share_of_the_steps(fastssl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fastssl("reproduce", "small", "--only", "muscle", "--seeds", 1, "--budget", 0.5)
    assert result.exit_code == 0, result.output
    out = tmp_path / "runs" / "reproduce" / "small-budget-0.5"
    (row,) = csv.DictReader((out / "cells.csv").open())
    assert (row["row"], row["steps"]) == ("muscle", "2")
    assert "0.5 of the steps" in (out / "table.md").read_text()


def test_one_column(fastssl, tmp_path, monkeypatch):
    wide = replace(SMALL, cells=(*SMALL.cells, replace(SMALL.cells[0], column="another")))
    monkeypatch.setitem(tables.TABLES, "small", wide)
    options = ("--column", "another", "--seeds", 1, "--out", tmp_path / "t")
    assert fastssl("reproduce", "small", *options).exit_code == 0
    (row,) = csv.DictReader((tmp_path / "t" / "cells.csv").open())
    assert (row["row"], row["column"]) == ("supervised", "another")


def test_precision_and_compiler_of_every_run(fastssl, refused, tmp_path):
    options = ("reproduce", "small", "--only", "muscle", "--seeds", 1, "--out", tmp_path / "t")
    assert fastssl(*options, "--precision", "bf16").exit_code == 0
    run = tmp_path / "t" / "muscle-20-labels-seed-0" / "run.json"
    assert json.loads(run.read_text())["config"]["precision"] == "bf16"
    shutil.rmtree(run.parent)
    assert "the device is cpu" in refused(*options, "--device", "cpu", "--compile", "graph")


def test_the_headlines_are_cells_of_tables(tmp_path):
    """What benchmarks/headlines.sh asks for, and that it says when a run failed."""
    fake, said = tmp_path / "fastssl", tmp_path / "said"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{said}"\nexit "$STATUS"\n')
    fake.chmod(0o755)
    script = Path(__file__).parents[2] / "benchmarks" / "headlines.sh"
    for status in (0, 2):
        env = os.environ | {"FASTSSL": str(fake), "STATUS": str(status)}
        done = subprocess.run([script, tmp_path / "runs", tmp_path], env=env, check=False)
        assert done.returncode == (status > 0)
    calls = [call.splitlines() for call in said.read_text().split("reproduce\n")[1:]]
    cells = []
    for table, *options in calls[:2]:
        row, column = (options[options.index(o) + 1] for o in ("--only", "--column"))
        (cell,) = tables.TABLES[table].select([row], [column])
        cells.append((cell.algorithm, cell.data, cell.paper))
    assert [algorithm for algorithm, *_ in cells] == ["muscle+mean-teacher", "ccn"]
    assert [paper.split()[0] for *_, paper in cells] == ["75.86", "12.05"]


def test_the_tables_are_listed(fastssl):
    result = fastssl("reproduce")
    assert result.exit_code == 0
    assert "small  A small table; 2 cells, 3 seeds" in result.stdout
    assert result.stdout.startswith("digits  ")


def test_a_run_of_another_configuration_is_not_touched(fastssl, refused, tmp_path, monkeypatch):
    options = ("reproduce", "small", "--only", "muscle", "--seeds", 1, "--out", tmp_path / "t")
    assert fastssl(*options).exit_code == 0
    before = modification_times(tmp_path)
    changed = replace(SMALL.cells[1], changes=CHANGES | {"steps": 2})
    monkeypatch.setitem(tables.TABLES, "small", replace(SMALL, cells=(changed,)))
    assert "the run has steps = 4, not 2" in refused(*options)
    assert modification_times(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smal"], "did you mean 'small'"),
        (["small", "--only", "mussel"], "did you mean 'muscle'"),
        (["small", "--column", "20 label"], "did you mean '20 labels'"),
        (["small", "--seeds", "0"], "seeds: 0; expected 1 or more"),
        (["small", "--budget", "0"], "budget: 0; expected a share above 0"),
        (["small", "--budget", "nan"], "budget: nan"),
        (["small", "--smoke", "--budget", "0.5"], "--smoke and --budget exclude each other"),
    ],
)
def test_bad_input_creates_nothing(refused, tmp_path, arguments, message):
    assert message in refused("reproduce", *arguments, "--out", tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
