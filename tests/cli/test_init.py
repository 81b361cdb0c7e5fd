"""`fastssl train --init RUN`: whose weights a run starts from, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

SHORT = (
    *("--labels", "20", "--device", "cpu", "--set", "checkpoint.every=1"),
    *("--set", "data.labeled_rows=12", "--set", "data.unlabeled_rows=12"),
)
STILL = (
    "--set",
    "optim.lr=1e-30",
    "--set",
    "optim.weight_decay=0",
    "--steps",
    "1",
)  # moves nothing


def weights(run, step):
    return load_file(run / "checkpoints" / f"step-{step:08d}.safetensors")


def part(tensors, prefix):
    """The parameters below a prefix; batch-norm statistics move at any learning rate."""
    return {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if key.startswith(prefix) and "running_" not in key and "num_batches" not in key
    }


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys() != set()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


@pytest.fixture(scope="module")
def teacher_run(fastssl, tmp_path_factory):
    """A finished run with a student and a teacher that differ."""
    path = tmp_path_factory.mktemp("origin") / "mt"
    result = fastssl("train", "mean-teacher", *SHORT, "--steps", "3", "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_the_network_is_the_runs(fastssl, trained, tmp_path):
    result = fastssl(
        "train", "supervised", *SHORT, *STILL, "--init", trained[0], "--out", tmp_path / "a"
    )
    assert result.exit_code == 0, result.output
    line = result.stdout.splitlines()[1]
    assert line.strip() == f"starts from {trained[0]} (muscle, step 40): network; head kept"
    ours, theirs = weights(tmp_path / "a", 1), weights(trained[0], 40)
    assert_same(part(ours, "algorithm.network."), part(theirs, "algorithm.network."))
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run["config"]["init"] == str(trained[0])
    assert run["origin"] == {
        "run": str(trained[0]),
        "algorithm": "muscle",
        "step": 40,
        "networks": {"network": "network"},
        "fresh": [],
        "head_kept": True,
    }


def test_a_teacher_is_the_runs_teacher_and_remembers_as_long(fastssl, teacher_run, tmp_path):
    options = ("--init", teacher_run, "--out", tmp_path / "a", "--set", "algorithm.decay=0.9")
    result = fastssl("train", "muscle", "--base", "mean-teacher", *SHORT, *STILL, *options)
    assert result.exit_code == 0, result.output
    ours, theirs = weights(tmp_path / "a", 1), weights(teacher_run, 3)
    assert_same(part(ours, "algorithm.network."), part(theirs, "algorithm.network."))
    assert ours["algorithm.teacher.updates"] == theirs["algorithm.teacher.updates"] + 1 == 4
    # Update 4 of the average (MUSCLE eq. 2): mu = min(1 - 1/5, 0.9).
    teacher, student = (
        theirs[f"algorithm.{name}.head.bias"] for name in ("teacher.network", "network")
    )
    assert not torch.equal(teacher, student)
    expected = 0.8 * teacher + 0.2 * student
    torch.testing.assert_close(ours["algorithm.teacher.network.head.bias"], expected)


def test_a_teacher_without_one_in_the_run_copies_the_network(fastssl, trained, tmp_path):
    options = ("--init", trained[0], "--out", tmp_path / "a")
    result = fastssl("train", "mean-teacher", *SHORT, *STILL, *options)
    assert "network, teacher.network from its network; head kept" in result.stdout
    ours, theirs = weights(tmp_path / "a", 1), weights(trained[0], 40)
    expected = part(theirs, "algorithm.network.")
    for key, value in part(ours, "algorithm.teacher.network.").items():
        torch.testing.assert_close(value, expected[key])
    assert ours["algorithm.teacher.updates"] == 1


def test_a_second_network_without_a_counterpart_stays_fresh(fastssl, trained, tmp_path):
    options = ("--init", trained[0], "--out", tmp_path / "a")
    result = fastssl("train", "ccn", *SHORT, *STILL, *options)
    assert "network; freshly initialised: second; head kept" in result.stdout
    ours = weights(tmp_path / "a", 1)
    first, second = (part(ours, f"algorithm.{name}.") for name in ("network", "second"))
    assert all(
        not torch.equal(first[key], second[key])
        for key in first
        if "weight" in key and first[key].dim() > 1
    )


def test_other_classes_get_a_fresh_head(fastssl, trained, tmp_path):
    """Of the same number, so that only the names tell."""
    origin = tmp_path / "origin"
    shutil.copytree(trained[0], origin)
    run = json.loads((origin / "run.json").read_text())
    run["data"]["class_names"][0] = "nought"
    (origin / "run.json").write_text(json.dumps(run))
    command = ("train", "mean-teacher", *SHORT, *STILL)
    fastssl(*command, "--out", tmp_path / "fresh")
    result = fastssl(*command, "--init", origin, "--out", tmp_path / "a")
    assert "head freshly initialised, as the classes differ" in result.stdout
    ours, fresh = weights(tmp_path / "a", 1), weights(tmp_path / "fresh", 1)
    theirs = part(weights(origin, 40), "algorithm.network.")
    heads = ("algorithm.network.head.", "algorithm.teacher.network.head.")
    for prefix in heads:
        assert_same(part(ours, prefix), part(fresh, prefix))
    extractor = part(ours, "algorithm.network.extractor.")
    assert_same(
        extractor, {k.removeprefix("extractor."): v for k, v in theirs.items() if "head" not in k}
    )


def test_a_resumed_run_needs_its_origin_no_more(fastssl, refused, trained, tmp_path):
    origin, out = tmp_path / "origin", tmp_path / "a"
    shutil.copytree(trained[0], origin)
    command = ("train", "supervised", *SHORT, "--steps", "2", "--init", origin)
    assert fastssl(*command, "--out", out).exit_code == 0
    shutil.rmtree(origin)
    assert fastssl("train", "supervised", "--out", out, "--resume").exit_code == 0
    assert fastssl("evaluate", out).exit_code == 0
    message = refused("train", "supervised", "--out", out, "--resume", "--init", trained[0])
    assert "the run has init = " in message


def test_what_cannot_be_started_from_is_refused(fastssl, refused, trained, tmp_path):
    out = tmp_path / "a"

    def refusal(*options, init=trained[0], algorithm="supervised"):
        message = refused("train", algorithm, *SHORT, *options, "--init", init, "--out", out)
        assert not out.exists()
        return message

    assert "is not a run folder" in refusal(init=tmp_path / "absent")
    message = refusal("--set", "model.name=conv_large")
    assert "trained another network: tensor extractor." in message
    assert "its model.name is small_cnn, this run's conv_large" in message

    copy = tmp_path / "copy"
    shutil.copytree(trained[0], copy)
    file = copy / "checkpoints" / "step-00000040.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "broken checkpoint" in refusal(init=copy)
    run = json.loads((trained[0] / "run.json").read_text())
    run["config"]["steps"] = 50
    shutil.copytree(trained[0], tmp_path / "half")
    (tmp_path / "half" / "run.json").write_text(json.dumps(run))
    assert "is at step 40 of 50; finish it with --resume" in refusal(init=tmp_path / "half")
    del run["data"]
    (tmp_path / "half" / "run.json").write_text(json.dumps(run))
    assert "is not one that fastssl wrote" in refusal(init=tmp_path / "half")
