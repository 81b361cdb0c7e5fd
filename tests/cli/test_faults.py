"""`fastssl train` when the disk or the data fail it: one line, exit code 2, the run still there."""

import resource
import shutil

import pytest
from image_trees import digits_tree

STEPS = ("--steps", "4", "--device", "cpu", "--image-size", "8", "--set", "checkpoint.every=2")
ROWS = ("--set", "data.labeled_rows=4", "--set", "data.unlabeled_rows=0")


@pytest.fixture
def run_and_data(fastssl, tmp_path):
    """A finished run and the folder of images it is of."""
    data = digits_tree(tmp_path / "images", broken=False).root
    run = tmp_path / "run"
    arguments = ("--data", data, "--data-dir", tmp_path / "cache", *STEPS, *ROWS, "--out", run)
    result = fastssl("train", "supervised", *arguments)
    assert result.exit_code == 0, result.output
    return run, data


def test_data_that_has_vanished(refused, run_and_data):
    run, data = run_and_data
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    resume = ("train", "supervised", "--out", run, "--resume")
    image = next(path for path in sorted(data.rglob("*.png")))
    shutil.move(image, data.parent / "elsewhere.png")
    assert "made for other data" in refused(*resume)
    shutil.rmtree(data)
    for command in (resume, ("evaluate", run)):
        assert f"there is no folder {data}" in refused(*command)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_checkpoint_of_another_split(refused, run_and_data, tmp_path):
    run, _ = run_and_data
    split = run / "split.json"
    split.write_text(split.read_text().replace('"seed": 0', '"seed": 1'))
    message = refused("train", "supervised", "--out", run, "--resume")
    assert "step-00000004.safetensors is of another run: its label split is" in message


def test_a_full_disk(fastssl, refused, tmp_path):
    options = ("train", "supervised", "--labels", "20", "--device", "cpu", "--steps", "4", *ROWS)
    run = tmp_path / "run"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        result = fastssl(*options, "--out", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "step-00000004.safetensors: File too large" in result.stderr
    again = fastssl("train", "supervised", "--out", run, "--resume")  # it got to no checkpoint
    assert again.exit_code == 0, again.output
    assert "resumed" not in again.stdout
    assert (run / "checkpoints" / "step-00000004.json").exists()


def test_the_best_checkpoint_is_evaluated(fastssl, refused, tmp_path):
    run = tmp_path / "run"
    options = ("--labels", "20", "--device", "cpu", "--steps", "8", "--set", "data.labeled_rows=8")
    watched = ("--validation", "50", "--set", "eval.every=2")
    assert fastssl("train", "supervised", *options, *watched, "--out", run).exit_code == 0
    assert fastssl("evaluate", run, "--checkpoint", "best").exit_code == 0
    assert "99; expected last, best or one of" in refused("evaluate", run, "--checkpoint", "99")
