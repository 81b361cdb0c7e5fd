"""`fastssl report`: accuracies side by side, and one plot."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def runs(trained, tmp_path):
    """The same run under two seeds with known accuracies, and one that is not finished."""
    for name, seed, accuracy in (("a", 0, 0.95), ("b", 1, 0.97)):
        shutil.copytree(trained[0], tmp_path / name)
        file = tmp_path / name / "run.json"
        description = json.loads(file.read_text())
        description["config"]["seed"] = seed
        file.write_text(json.dumps(description))
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        last = json.loads(rows[-1]) | {"accuracy/test/network": accuracy}
        text = "\n".join([*rows[:-1], json.dumps(last)]) + "\n"
        (tmp_path / name / "metrics.jsonl").write_text(text)
    shutil.copytree(tmp_path / "a", tmp_path / "unfinished")
    metrics = tmp_path / "unfinished" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:2]))
    return tmp_path


def test_accuracies_stand_side_by_side(fastssl, runs):
    result = fastssl("report", runs / "a", runs / "b", runs / "unfinished")
    assert result.exit_code == 0, result.output
    header, a, b, unfinished, mean, plot = result.stdout.splitlines()
    assert a.split() == ["a", "muscle", "digits", "20", "0", "network", "95.00"]
    assert b.split()[-1] == "97.00"
    assert len(header) == len(a) == len(b) == len(unfinished)
    assert unfinished.endswith("at step 20 of 40")
    assert mean == "muscle on digits, 20 labels, network: 96.00 ± 1.41 % over 2 seeds"
    assert plot == f"plot: {runs / 'comparison.png'}"


def test_the_plot_is_where_it_was_asked_for(fastssl, runs):
    out = runs / "plot.png"
    assert fastssl("report", runs / "a", "--out", out).exit_code == 0
    pixels = np.asarray(Image.open(out).convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 128).sum() > 2000  # lines and letters, not an empty canvas


def test_an_algorithms_own_figures_stand_beside_the_plot(fastssl, tmp_path):
    run, out = tmp_path / "run", tmp_path / "plot.png"
    few = ("--labels", "40", "--steps", "4", "--set", "data.unlabeled_rows=20", "--device", "cpu")
    assert fastssl("train", "ccn", "--data", "two_spirals", *few, "--out", run).exit_code == 0
    result = fastssl("report", run, "--out", out)
    assert result.exit_code == 0, result.output
    for name in ("networks", "boundaries-full-two_spirals-40-labels"):
        path = tmp_path / f"plot-{name}.png"
        assert f"plot: {path}\n" in result.stdout
        assert Image.open(path).size[0] > 400
    assert "Decision boundaries of net 1 (above) and CCN (below)" in result.stdout


def test_bad_input(refused, runs, tmp_path):
    assert "is not a run folder" in refused("report", tmp_path / "absent")
    assert "Missing argument" in refused("report")
    out = runs / "no" / "plot.png"
    assert "not a file name in an existing folder" in refused("report", runs / "a", "--out", out)
    (runs / "a" / "run.json").write_text('{"format": 1}')
    assert "not a configuration" in refused("report", runs / "a")
    (runs / "b" / "metrics.jsonl").write_text("")
    assert "nothing was logged yet" in refused("report", runs / "b")
