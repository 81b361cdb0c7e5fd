"""`fastssl train`: what a run leaves, resuming, and everything that is refused."""

import json
import re
import shutil
import signal
import sys

import pytest

from fastssl.data.batches import TwoStreams
from fastssl.training.record import read_metrics

SHORT = (
    *("--labels", "20", "--steps", "6", "--device", "cpu"),
    *("--set", "data.labeled_rows=12", "--set", "data.unlabeled_rows=12"),
)


def snapshot(path):
    """Every file below a path with its bytes."""
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def lines_without_time(path):
    rows = read_metrics(path / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_run_leaves_its_files_and_says_where(trained):
    path, result = trained
    names = ["split.json", "run.json", "metrics.jsonl", "checkpoints", "predictions.safetensors"]
    names += ["curves.png", "report.html"]
    for name in names:
        assert (path / name).exists()
        assert str(path / name) in result.stdout
    accuracy = float(re.search(r"test accuracy ([\d.]+) %", result.stdout)[1])
    last = read_metrics(path / "metrics.jsonl")[-1]["accuracy/test/network"]
    assert accuracy == pytest.approx(100 * last, abs=0.005)
    assert accuracy > 50  # 40 steps are enough to be far from the 10 % of guessing


def test_the_split_is_balanced_and_on_disk(trained):
    split = json.loads((trained[0] / "split.json").read_text())
    assert len(split["labeled"]) == 20
    assert len(split["unlabeled"]) == 1437 - 20
    assert split["validation"] == []


def test_both_algorithms_get_the_same_labels_and_schedule(fastssl, tmp_path):
    for name in ("muscle", "supervised"):
        assert fastssl("train", name, *SHORT, "--out", tmp_path / name).exit_code == 0
    splits = [(tmp_path / name / "split.json").read_text() for name in ("muscle", "supervised")]
    assert splits[0] == splits[1]
    configs = [
        json.loads((tmp_path / name / "run.json").read_text())["config"]
        for name in ("muscle", "supervised")
    ]
    for key in ("data", "views", "model", "steps", "seed"):
        assert configs[0][key] == configs[1][key]


@pytest.mark.parametrize(
    ("algorithm", "networks"),
    [
        ("mean-teacher", ["teacher", "student"]),
        ("muscle+mean-teacher", ["teacher", "student"]),
        ("muscle+fixmatch", ["average", "student"]),
        ("mean-teacher+label-propagation", ["teacher", "student"]),
    ],
)
def test_every_network_is_evaluated_and_the_papers_comes_first(
    fastssl, tmp_path, algorithm, networks
):
    result = fastssl("train", algorithm, *SHORT, "--out", tmp_path / "run")
    assert result.exit_code == 0
    evaluated = json.loads(fastssl("evaluate", tmp_path / "run", "--json").stdout)["networks"]
    assert list(evaluated) == networks
    assert [f"({name}, n = 360)" in result.stdout for name in networks] == [True, True]
    run = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert run["algorithm_name"] == algorithm
    assert (run["muscle"] is None) == (not algorithm.startswith("muscle"))


def test_the_same_command_gives_the_same_run(fastssl, tmp_path):
    for name in ("one", "two"):
        fastssl("train", "muscle", *SHORT, "--set", "log_every=1", "--out", tmp_path / name)
    assert lines_without_time(tmp_path / "one") == lines_without_time(tmp_path / "two")
    checkpoints = [tmp_path / name / "checkpoints" for name in ("one", "two")]
    names = [sorted(p.name for p in folder.iterdir()) for folder in checkpoints]
    assert names[0] == names[1] != []
    for name in names[0]:
        assert (checkpoints[0] / name).read_bytes() == (checkpoints[1] / name).read_bytes()


def test_validation_keeps_the_test_part_for_the_end(fastssl, tmp_path):
    options = ("--validation", "100", "--set", "eval.every=2", "--out", tmp_path / "run")
    assert fastssl("train", "supervised", *SHORT, *options).exit_code == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert ["accuracy/validation/network" in row for row in rows] == [True] * 3
    assert ["accuracy/test/network" in row for row in rows] == [False, False, True]
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert len(split["validation"]) == 100


def test_the_default_folder_names_the_run(fastssl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fastssl("train", "supervised", *SHORT, "--seed", "3").exit_code == 0
    assert (tmp_path / "runs" / "supervised-digits-20-3" / "run.json").is_file()
    assert fastssl("train", "supervised", "--steps", "2").exit_code == 0
    assert (tmp_path / "runs" / "supervised-digits-all-0" / "run.json").is_file()


@pytest.mark.parametrize(
    "algorithm",
    [
        *("muscle", "muscle --base mean-teacher", "fixmatch"),
        # stopped in the first stage, and in a pass of the second
        "label-propagation --set propagation.first_stage=0.9",
        "muscle --base mean-teacher --label-propagation --set propagation.first_stage=0.2",
    ],
)
def test_ctrl_c_then_resume_is_the_uninterrupted_run(fastssl, tmp_path, monkeypatch, algorithm):
    options = ("train", *algorithm.split(), *SHORT, "--set", "log_every=1", "--set", "eval.every=2")
    assert fastssl(*options, "--out", tmp_path / "straight").exit_code == 0

    at = TwoStreams.at

    def interrupted(self, step):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return at(self, step)

    path = tmp_path / "stopped"
    monkeypatch.setattr(TwoStreams, "at", interrupted)
    stopped = fastssl(*options, "--out", path)
    assert stopped.exit_code == 130
    assert stopped.stderr.count("\n") == 1
    assert "stopped after step 3 of 6, saved" in stopped.stderr
    command = stopped.stderr.rpartition("fastssl ")[2].split()

    monkeypatch.setattr(TwoStreams, "at", at)
    assert fastssl(*command).exit_code == 0
    assert lines_without_time(path) == lines_without_time(tmp_path / "straight")
    name = "step-00000006.safetensors"
    straight = (tmp_path / "straight" / "checkpoints" / name).read_bytes()
    assert (path / "checkpoints" / name).read_bytes() == straight


def test_label_propagations_second_stage_starts_over_and_logs_what_it_found(fastssl, tmp_path):
    options = ("--base", "fixmatch", *SHORT, "--set", "log_every=1", "--out", tmp_path / "run")
    assert fastssl("train", "label-propagation", *options).exit_code == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    rates = [row["lr"] for row in rows]
    assert rates[:3] == rates[3:] == sorted(rates[:3], reverse=True)
    assert all("term/kept" in row for row in rows)
    assert ["term/reached" in row for row in rows] == [False] * 3 + [True] * 3
    assert all(20 <= row["term/reached"] <= 1437 for row in rows[3:])
    assert all(20 / 1437 < row["term/mean_weight"] <= 1 for row in rows[3:])


def test_resuming_a_finished_run_changes_nothing_but_the_plot(fastssl, trained, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(trained[0], path)
    before = snapshot(path)
    result = fastssl("train", "muscle", "--out", path, "--resume")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1] == trained[1].stdout.splitlines()[1]
    after = snapshot(path)
    assert before.keys() == after.keys()
    assert {p.name for p in before if before[p] != after[p]} <= {"curves.png", "report.html"}


def test_overwrite_replaces_the_run_and_leaves_foreign_files(fastssl, tmp_path):
    path = tmp_path / "run"
    fastssl("train", "supervised", *SHORT, "--out", path)
    (path / "notes.txt").write_text("mine")
    result = fastssl("train", "supervised", *SHORT, "--steps", "4", "--out", path, "--overwrite")
    assert result.exit_code == 0
    assert (path / "notes.txt").read_text() == "mine"
    assert [p.name for p in sorted((path / "checkpoints").iterdir())] == [
        "step-00000004.json",
        "step-00000004.safetensors",
    ]


def test_a_diverged_run_says_so_in_one_line(fastssl, tmp_path):
    result = fastssl("train", "muscle", *SHORT, "--out", tmp_path / "run", "--set", "optim.lr=1e30")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "not finite at step" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["muscle", "--data", "digit"], "did you mean 'digits'"),
        (["muscle", "--data", "./folder"], "there is no folder ./folder"),
        (["mussel", "--labels", "20"], "did you mean 'muscle'"),
        (["muscle", "--base", "mean_teacher"], "did you mean 'muscle+mean-teacher'"),
        (["fixmatch", "--base", "mean-teacher"], "--base: fixmatch takes none"),
        (["ccn", "--label-propagation"], "--label-propagation: ccn does not take it"),
        (["label-propagation", "--base", "mt"], "unknown name 'mt+label-propagation'"),
        (["label-propagation", "--labels", "20", "--set", "propagation.k=0"], "propagation.k: 0"),
        (
            ["label-propagation", "--labels", "20", "--set", "propagation.k=1437"],
            "propagation.k: 1437; expected fewer than the 1437 training images",
        ),
        (["muscle", "--labels", "0"], "labels: 0; expected at least 10"),
        (["muscle", "--labels", "-10"], "labels: -10"),
        (["muscle", "--labels", "25"], "does not divide by the 10 classes"),
        (["muscle", "--labels", "1400"], "needs 140 images of each class, the smallest has 138"),
        (["muscle", "--labels", "many"], "not a valid integer"),
        (["muscle"], "muscle needs unlabeled images"),
        (["muscle", "--labels", "20", "--set", "data.unlabeled_rows=0"], "needs unlabeled images"),
        (["muscle", "--labels", "20", "--validation", "1400"], "validation: 1400"),
        (["muscle", "--labels", "20", "--device", "tpu"], "device: 'tpu'; expected cpu, cuda"),
        (["muscle", "--labels", "20", "--device", "cuda:99"], "device: "),
        (["muscle", "--labels", "20", "--steps", "0"], "steps: 0"),
        (["muscle", "--labels", "20", "--seed", "-1"], "seed: -1"),
        (["muscle", "--labels", "20", "--set", "optim.lrr=1"], "did you mean 'optim.lr'"),
        (["muscle", "--labels", "20", "--set", "optim.lr=fast"], "expected float"),
        (["muscle", "--labels", "20", "--set", "optim.lr"], "expected KEY=VALUE"),
        (["muscle", "--labels", "20", "--set", "views.hard.policy=hard"], "unknown name 'hard'"),
        (["muscle", "--labels", "20", "--set", "views.hard.translate=9"], "at most the 8 pixels"),
        (
            ["muscle", "--labels", "20", "--set", "model.name=resnet"],
            "did you mean 'resnet18'? known: conv_large, mlp, resnet18, small_cnn",
        ),
        (["muscle", "--labels", "20", "--set", "data.labeled_rows=0"], "data.labeled_rows: 0"),
        (["muscle", "--labels", "20", "--resume"], "not a run folder"),
        (["muscle", "--labels", "20", "--resume", "--overwrite"], "exclude each other"),
        (["muscle", "--lables", "20"], "--lables"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_creates_nothing(refused, tmp_path, arguments, message):
    out = tmp_path / "runs" / "a"
    assert message in refused("train", *arguments, "--out", out)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_stays_as_it_is(refused, trained):
    path, _ = trained
    before = snapshot(path)
    options = ("train", "muscle", "--labels", "20", "--out", path)
    assert "already holds a run" in refused(*options)
    for change, message in [
        (("--resume", "--steps", "50"), "the run has steps = 40, not 50"),
        (("--resume", "--seed", "1"), "the run has seed = 0, not 1"),
        (("--resume", "--set", "muscle.alpha=3"), "the run has muscle.alpha = 2.0, not 3.0"),
        (
            ("--resume", "--set", "views.hard.n=1", "--set", "views.hard.policy=rand_augment"),
            "the run has views.hard.policy = digits, not rand_augment",
        ),
        (("--overwrite", "--labels", "25"), "does not divide"),
        (("--overwrite", "--device", "tpu"), "device"),
    ]:
        assert message in refused(*options, *change)
    assert "the run is of muscle" in refused("train", "supervised", "--out", path, "--resume")
    assert snapshot(path) == before


def test_an_out_that_is_a_file_stays_as_it_is(refused, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    for out in (path, path / "below"):
        refused("train", "muscle", *SHORT, "--out", out, "--overwrite")
    assert snapshot(tmp_path) == {path: b"mine"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", "not readable as JSON"),
        ("run.json", '{"format": 1}', "not one that fastssl wrote"),
        ("split.json", "{}", "not a label split"),
        ("checkpoints/step-00000040.safetensors", "", "broken checkpoint"),
        ("checkpoints/step-00000040.json", "{", "broken checkpoint"),
        ("metrics.jsonl", "{\n", "line 1"),
    ],
)
def test_a_damaged_run_is_not_resumed(refused, trained, tmp_path, name, text, message):
    path = tmp_path / "run"
    shutil.copytree(trained[0], path)
    (path / name).write_text(text)
    before = snapshot(path)
    assert message in refused("train", "muscle", "--out", path, "--resume")
    assert snapshot(path) == before


def test_event_files_without_their_package_are_refused_before_anything(
    refused, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = refused("train", "muscle", *SHORT, "--tensorboard", "--out", tmp_path / "run")
    assert "pip install 'fastssl[tensorboard]'" in message
    assert list(tmp_path.iterdir()) == []
