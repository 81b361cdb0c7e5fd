"""The run folder: nothing of anyone else's is touched, nothing is left half-written."""

import json
import os

import pytest

from fastssl.errors import InputError
from fastssl.training.record import MetricsLog, RunFolder, read_metrics, write_atomic


def run_in(path):
    """A run folder with every file that a run writes."""
    folder = RunFolder.create(path, overwrite=False)
    folder.write_description({"config": {}})
    folder.checkpoints.mkdir()
    for file in (folder.split_json, folder.metrics_jsonl, folder.curves_png):
        file.write_text("")
    for suffix in ("safetensors", "json"):
        (folder.checkpoints / f"step-00000010.{suffix}").write_text("")
    folder.outputs.mkdir()
    for name in ("plane-00000010.safetensors", "final.safetensors"):
        (folder.outputs / name).write_text("")
    (folder.path / "metrics.jsonl.writing").write_text("left by a crash")
    return folder


def test_a_description_is_read_back(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b", overwrite=False)
    folder.write_description({"config": {"steps": 3}})
    assert RunFolder.open(folder.path).description()["config"] == {"steps": 3}


def test_a_run_is_not_overwritten_unasked(tmp_path):
    run_in(tmp_path)
    with pytest.raises(InputError, match="already holds a run"):
        RunFolder.create(tmp_path, overwrite=False)


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(tmp_path):
    folder = run_in(tmp_path)
    foreign = [
        tmp_path / "notes.txt",
        tmp_path / "plots" / "curves.png",
        folder.checkpoints / "best.safetensors",
        folder.checkpoints / "step-10.json",
        folder.outputs / "plane-10.safetensors",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    RunFolder.create(tmp_path, overwrite=True)
    left = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(foreign)


def test_overwriting_without_foreign_files_leaves_an_empty_folder(tmp_path):
    run_in(tmp_path)
    RunFolder.create(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['{"name": "somebody else\'s"}', "[]", "{", ""])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_run_json_is_left_alone(tmp_path, text, overwrite):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError):
        RunFolder.create(tmp_path, overwrite=overwrite)
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_under_a_runs_name_is_left_alone(tmp_path, overwrite):
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"holds metrics\.jsonl but no run\.json"):
        RunFolder.create(tmp_path, overwrite=overwrite)
    assert (tmp_path / "metrics.jsonl").read_text() == "mine"


def test_a_folder_with_other_files_can_take_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert RunFolder.create(tmp_path, overwrite=False).path == tmp_path


def test_a_file_is_not_a_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        RunFolder.create(path, overwrite=True)
    with pytest.raises(InputError, match="cannot create"):
        RunFolder.create(path / "below", overwrite=False)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_deleted(
    tmp_path, monkeypatch
):
    # The tests may run as root, who may write anywhere: the system's answer is given here.
    folder = run_in(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="not writable"):
        RunFolder.create(tmp_path, overwrite=True)
    assert folder.metrics_jsonl.exists()


def test_opening_what_is_not_a_run(tmp_path):
    with pytest.raises(InputError, match=r"no run\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        RunFolder.open(tmp_path / "absent")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=r"cannot write .*file: No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_metrics_after_the_resumed_step_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (5, 10, 15):
        log.append(step, {"loss": step / 10})
    log.close()
    path.write_text(path.read_text() + '{"step": 20, "sec')
    log = MetricsLog(path, after_step=10)
    log.append(12, {"loss": 0.0})
    log.close()
    assert [row["step"] for row in read_metrics(path)] == [5, 10, 12]


def test_a_new_run_starts_with_empty_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 3, "seconds": 1.0}) + "\n")
    MetricsLog(path).close()
    assert path.read_text() == ""


@pytest.mark.parametrize("line", ["{", "3", '{"step": 1}', '{"step": "1", "seconds": 0.1}'])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seconds": 0.1}\n' + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_metrics(path)
