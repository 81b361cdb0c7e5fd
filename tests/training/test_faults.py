"""Disks that are full or read-only: one line, and what was saved is still there."""

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from probe import Probe, checkpoints, run, sgd

from fastssl.errors import InputError
from fastssl.training.record import TEMPORARY, read_metrics


@contextmanager
def files_of_at_most(size):
    """Within, the system lets no file grow beyond `size` bytes, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def resumed(folder, step):
    """The run of a folder, from its last checkpoint to the end."""
    probe = Probe()
    optimizer = sgd(probe)
    assert checkpoints(folder).load(probe, optimizer) == step
    run(probe, optimizer, folder, first_step=step)
    return probe


@pytest.fixture
def straight(tmp_path):
    """A run of 20 steps that nothing happened to."""
    (folder := tmp_path / "straight").mkdir()
    probe = Probe()
    run(probe, sgd(probe), folder)
    return probe


def failing(tmp_path, size, message):
    """A run that the disk stops, after its checkpoint of step 10; its folder."""
    (folder := tmp_path / "run").mkdir()
    torch.manual_seed(0)
    probe = Probe()
    optimizer = sgd(probe)
    run(probe, optimizer, folder, steps=10, evaluate=lambda done: {})
    assert checkpoints(folder).load(probe, optimizer) == 10
    with files_of_at_most(size), pytest.raises(InputError, match=message) as raised:
        run(probe, optimizer, folder, first_step=10)
    assert "\n" not in str(raised.value)
    assert checkpoints(folder).steps() == [10]
    assert checkpoints(folder).load(Probe(), sgd(Probe())) == 10
    return folder


def test_a_checkpoint_that_does_not_fit(tmp_path):
    folder = failing(tmp_path, 1000, r"cannot write .*step-00000020\.safetensors: File too large")
    assert not list(folder.rglob(f"*{TEMPORARY}"))  # a full disk needs the room
    assert resumed(folder, 10).steps_seen == 20
    assert checkpoints(folder).steps() == [10, 20]


def test_a_line_of_metrics_that_does_not_fit(tmp_path):
    folder = failing(tmp_path, 400, r"cannot write .*metrics\.jsonl: File too large")
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")][:2] == [5, 10]
    resumed(folder, 10)
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        ("open", r"cannot write .*metrics\.jsonl: Read-only file system"),
        ("replace", r"cannot write .*metrics\.jsonl: Read-only file system"),
        ("mkdir", r"cannot create .*checkpoints: Read-only file system"),
        ("unlink", r"cannot clear .*checkpoints: Read-only file system"),
    ],
)
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, refuses, message):
    # The tests may run as root, who may write anywhere: the system's answer is given here.
    actual = getattr(Path, refuses)

    def refuse(self, *arguments, **options):
        if refuses == "open" and arguments[:1] in ((), ("r",)):
            return actual(self, *arguments, **options)
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, refuses, refuse)
    probe = Probe()
    with pytest.raises(InputError, match=message):
        run(probe, sgd(probe), tmp_path, checkpoint_every=2)
    monkeypatch.undo()
    assert checkpoints(tmp_path).steps() == ([2, 4, 6] if refuses == "unlink" else [])
