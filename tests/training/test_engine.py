"""The loop: what is called when, what is logged, how it stops."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from probe import Probe, batch_at, checkpoints, run, sgd
from safetensors.torch import load_file

from fastssl.errors import DivergedError, InputError, StoppedError
from fastssl.training import loss_watch
from fastssl.training.schedules import cosine


@pytest.fixture
def probe():
    return Probe()


def test_the_steps_are_those_of_a_loop_written_by_hand(probe, tmp_path):
    by_hand = Probe()
    by_hand.load_state_dict(probe.state_dict())
    optimizer = sgd(by_hand)
    torch.manual_seed(1)
    for step in range(20):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * cosine(step, 20)
        optimizer.zero_grad()
        by_hand.loss(batch_at(step)).total.backward()
        optimizer.step()
    torch.manual_seed(1)
    run(probe, sgd(probe), tmp_path)
    for ours, theirs in zip(probe.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_epochs_and_steps_are_announced(probe, tmp_path):
    run(probe, sgd(probe), tmp_path, steps=14, steps_per_pass=6)
    assert [(s.step, s.epoch) for s in probe.epochs] == [(0, 0), (6, 1), (12, 2)]
    assert [s.step for s in probe.states] == list(range(1, 15))
    assert probe.states[5].epoch == 1


def test_a_stage_begins_like_a_run(probe, tmp_path):
    run(probe, sgd(probe), tmp_path, steps=16, starts=(0, 8), steps_per_pass=5)
    places = [(s.step, s.epoch, s.stage) for s in probe.epochs]
    assert places == [(0, 0, 0), (5, 1, 0), (8, 0, 1), (13, 1, 1)]


def test_metrics_come_at_their_intervals_and_at_the_end(probe, tmp_path):
    rows = run(probe, sgd(probe), tmp_path, steps=13, log_every=4, eval_every=6)
    assert [row["step"] for row in rows] == [4, 6, 8, 12, 13]
    logged = {"lr", "loss", "term/supervised"}
    evaluated = {"accuracy/test/network"}
    kinds = [set(row) - {"step", "seconds"} for row in rows]
    assert kinds == [logged, evaluated, logged, logged | evaluated, logged | evaluated]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_the_learning_rate_that_was_used_is_logged(probe, tmp_path):
    rows = run(probe, sgd(probe), tmp_path, steps=10, log_every=1)
    assert [row["lr"] for row in rows] == [0.1 * cosine(step, 10) for step in range(10)]


def test_evaluation_leaves_the_network_in_training_mode(probe, tmp_path):
    run(probe, sgd(probe), tmp_path)
    assert probe.training


def poisoned(first):
    """Batches whose images are nan from a step on."""

    def batches(step):
        batch = batch_at(step)
        return replace(batch, views=batch.views * float("nan")) if step >= first else batch

    return batches


def test_a_loss_that_is_not_finite_stops_the_run_unsaved(probe, tmp_path):
    message = r"not finite at step 12: loss = nan, term/supervised = nan; training images 0, 1, 2"
    with pytest.raises(DivergedError, match=message):
        run(probe, sgd(probe), tmp_path, batches=poisoned(11), checkpoint_every=5)
    assert checkpoints(tmp_path).steps() == [5, 10]


def test_what_is_needed_to_look_into_it_is_saved(probe, tmp_path):
    with pytest.raises(DivergedError, match=r"diverged-00000012\.json"):
        run(probe, sgd(probe), tmp_path, batches=poisoned(11), checkpoint_every=5)
    stem = tmp_path / "checkpoints" / "diverged-00000012"
    about = json.loads(stem.with_suffix(".json").read_text())
    assert (about["step"], about["noticed"]) == (12, 15)
    assert about["index"] == list(range(6))
    assert about["labels"] == batch_at(11).labels.tolist()
    assert list(about["losses"]) == ["11", "12", "13", "14", "15"]
    assert about["losses"]["11"]["loss"] == about["losses"]["11"]["term/supervised"] > 0
    assert about["losses"]["12"] == {"loss": "nan", "term/supervised": "nan"}
    tensors = load_file(stem.with_suffix(".safetensors"))
    assert tensors.pop("index").tolist() == list(range(6))
    assert tensors.keys() == {f"algorithm.{name}" for name in probe.state_dict()}
    assert tensors["algorithm.steps_seen"] == 15


def test_a_full_disk_does_not_hide_that_the_loss_is_not_finite(probe, tmp_path, monkeypatch):
    def full(path, data):
        raise InputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(loss_watch, "write_atomic", full)
    with pytest.raises(DivergedError, match=r"step 12: .*\(cannot write .*No space left") as raised:
        run(probe, sgd(probe), tmp_path, batches=poisoned(11))
    assert "\n" not in str(raised.value)


def test_a_checkpoint_between_two_log_steps_is_checked_as_well(probe, tmp_path):
    with pytest.raises(DivergedError):
        run(probe, sgd(probe), tmp_path, batches=poisoned(0), checkpoint_every=3)
    assert checkpoints(tmp_path).steps() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_stops(probe, tmp_path, number):
    def batches(step):
        if step == 6:
            signal.raise_signal(number)
        return batch_at(step)

    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match="after step 7 of 20"):
        run(probe, sgd(probe), tmp_path, batches=batches)
    assert checkpoints(tmp_path).steps() == [7]
    assert int(probe.steps_seen) == 7
    assert signal.getsignal(number) is before


@pytest.fixture
def heeds_ctrl_c():
    """A job in the background of a shell ignores Ctrl-C, and so would the second one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_a_second_ctrl_c_interrupts_at_once(probe, tmp_path):
    def batches(step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return batch_at(step)

    with pytest.raises(KeyboardInterrupt):
        run(probe, sgd(probe), tmp_path, batches=batches)
