"""`fastssl evaluate`: the accuracy that training ended with."""

import json
import shutil

import pytest

from fastssl.training.record import read_metrics


def test_json_equals_the_accuracy_of_training(fastssl, trained):
    path, _ = trained
    result = json.loads(fastssl("evaluate", path, "--json").stdout)
    last = read_metrics(path / "metrics.jsonl")[-1]
    network = result["networks"]["network"]
    assert network["accuracy"] == last["accuracy/test/network"]
    assert network["error"] == pytest.approx(1 - network["accuracy"])
    assert network["n"] == 360
    assert (result["data"], result["part"], result["step"]) == ("digits", "test", 40)


def test_the_table_says_the_same(fastssl, trained):
    path, _ = trained
    accuracy = json.loads(fastssl("evaluate", path, "--json").stdout)["networks"]["network"]
    header, row = fastssl("evaluate", path).stdout.splitlines()
    assert header.split() == ["network", "accuracy", "%", "error", "%", "n"]
    percent = [f"{100 * accuracy[key]:.2f}" for key in ("accuracy", "error")]
    assert row.split() == ["network", *percent, "360"]


def test_a_broken_checkpoint_is_refused(refused, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "step-00000040.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    for command, *images in (("evaluate",), ("predict", tmp_path)):
        message = refused(command, tmp_path / "run", *images)
        assert "broken checkpoint" in message


def test_what_is_not_a_run_is_refused(refused, tmp_path):
    assert "is not a run folder" in refused("evaluate", tmp_path)
    assert "is not a run folder" in refused("evaluate", tmp_path / "absent")
    assert "Missing argument" in refused("evaluate")
