"""Checkpoints: resuming is bit-identical, and nothing damaged or foreign is ever loaded."""

import hashlib
import json
import signal
import time
from dataclasses import replace

import pytest
import torch
from probe import Probe, batch_at, checkpoints, run, sgd
from safetensors.torch import load, save

from fastssl.errors import InputError, StoppedError
from fastssl.training.checkpoint import Checkpoints


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints of steps 10 and 20."""
    probe = Probe()
    run(probe, sgd(probe), tmp_path)
    return tmp_path


def files(folder, step=20):
    stem = folder / "checkpoints" / f"step-{step:08d}"
    return stem.with_suffix(".safetensors"), stem.with_suffix(".json")


def rewrite(folder, change):
    """Change the tensors of the last checkpoint as someone would who also corrects the sha256."""
    tensors_file, json_file = files(folder)
    sidecar = json.loads(json_file.read_text())
    tensors = load(tensors_file.read_bytes())
    change(tensors)
    header = {key: value for key, value in sidecar.items() if key != "sha256"}
    data = save(tensors, metadata={"header": json.dumps(header)})
    tensors_file.write_bytes(data)
    json_file.write_text(json.dumps(sidecar | {"sha256": hashlib.sha256(data).hexdigest()}))


def without_time(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("stop", [20, 27])  # at a checkpoint of the run's own, and by Ctrl-C
def test_resuming_is_bit_identical(tmp_path, stop):
    def interrupted(step):
        if step == stop - 1:
            signal.raise_signal(signal.SIGINT)
        return batch_at(step)

    straight, its_optimizer = Probe(), None
    first = Probe()
    first.load_state_dict(straight.state_dict())
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()

    torch.manual_seed(1)
    its_optimizer = sgd(straight)
    its_rows = run(straight, its_optimizer, tmp_path / "straight", steps=40)
    its_generator = torch.get_rng_state()

    torch.manual_seed(1)
    with pytest.raises(StoppedError):
        run(first, sgd(first), tmp_path / "stopped", steps=40, batches=interrupted)

    torch.manual_seed(99)  # whatever the next process did before it resumed
    second = Probe()
    optimizer = sgd(second)
    assert checkpoints(tmp_path / "stopped").load(second, optimizer) == stop
    rows = run(second, optimizer, tmp_path / "stopped", steps=40, first_step=stop)

    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    momentum, its_momentum = optimizer.state_dict()["state"], its_optimizer.state_dict()["state"]
    assert momentum.keys() == its_momentum.keys()
    for index, entry in momentum.items():
        assert torch.equal(entry["momentum_buffer"], its_momentum[index]["momentum_buffer"])
    assert torch.equal(torch.get_rng_state(), its_generator)
    assert without_time(rows) == without_time(its_rows)
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)


def test_the_last_two_are_kept(tmp_path):
    probe = Probe()
    run(probe, sgd(probe), tmp_path, steps=25, checkpoint_every=5)
    assert checkpoints(tmp_path).steps() == [20, 25]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def test_those_of_every_k_th_step_stay(tmp_path):
    probe = Probe()
    run(probe, sgd(probe), tmp_path, steps=25, checkpoint_every=5, keep_every=8)
    assert checkpoints(tmp_path).steps() == [8, 16, 24, 25]


def test_the_best_on_the_validation_part_stays(tmp_path):
    accuracies = {2: 0.5, 4: 0.7, 6: 0.6, 8: 0.7, 10: 0.69, 12: 0.1}
    probe = Probe()
    run(
        probe,
        sgd(probe),
        tmp_path,
        steps=12,
        eval_every=2,
        checkpoint_every=5,
        evaluate=lambda done: {
            "accuracy/validation/network": accuracies[done],
            "accuracy/validation/teacher": 1 - accuracies[done],
            "accuracy/test/network": done / 12,
        },
    )
    found = checkpoints(tmp_path)
    assert found.steps() == [4, 10, 12]  # 4 was not due: it was saved for being the best
    assert found.best() == found.named("best") == 4
    assert found.named("last") is None
    assert found.named("10") == 10
    with pytest.raises(InputError, match="checkpoint: 8; expected last, best or one of 4, 10, 12"):
        found.named("8")


def test_the_test_part_never_chooses(saved):
    assert checkpoints(saved).best() is None
    with pytest.raises(InputError, match="no validation part"):
        checkpoints(saved).named("best")


def test_minutes_save_as_well_as_steps(tmp_path, monkeypatch):
    now, saves = 0.0, []

    def slow(step):
        nonlocal now
        now += 25
        return batch_at(step)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *_, **__: saves.append(step))
    every = {"checkpoint_every": 10, "checkpoint_minutes": 1.0}
    probe = Probe()
    run(probe, sgd(probe), tmp_path, batches=slow, **every)
    assert saves == [3, 6, 9, 10, 13, 16, 19, 20]


def test_what_a_killed_process_left_half_written_is_cleared_away(saved):
    folder = saved / "checkpoints"
    left = [f"step-{step:08d}.safetensors" for step in (15, 25)] + ["step-00000025.json.writing"]
    foreign = ["notes.txt", "best.safetensors", "step-15.json"]
    for name in (*left, *foreign):
        (folder / name).write_text("")
    probe = Probe()
    assert checkpoints(saved).load(probe) == 20
    run(probe, sgd(probe), saved, steps=30, first_step=20)
    names = {path.name for path in folder.iterdir()}
    assert names.isdisjoint(left)
    assert names > set(foreign)
    assert checkpoints(saved).steps() == [20, 30]


def test_a_checkpoint_without_its_json_does_not_exist(saved):
    files(saved)[1].unlink()
    assert checkpoints(saved).load(Probe()) == 10


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoints(tmp_path).load(Probe())


def truncate(folder):
    tensors, _ = files(folder)
    tensors.write_bytes(tensors.read_bytes()[:-7])


def flip_a_byte(folder):
    tensors, _ = files(folder)
    data = bytearray(tensors.read_bytes())
    data[-100] ^= 1
    tensors.write_bytes(data)


def empty(folder):
    files(folder)[0].write_bytes(b"")


def remove_tensors(folder):
    files(folder)[0].unlink()


def truncate_json(folder):
    _, sidecar = files(folder)
    sidecar.write_text(sidecar.read_text()[:-20])


def edit_json(folder, **changes):
    _, sidecar = files(folder)
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | changes))


def list_json(folder):
    files(folder)[1].write_text("[]")


def drop_tensor(folder):
    rewrite(folder, lambda tensors: tensors.pop("algorithm.network.head.bias"))


def drop_momentum(folder):
    rewrite(folder, lambda tensors: tensors.pop("optimizer.0.momentum_buffer"))


def reshape_tensor(folder):
    rewrite(folder, lambda t: t.update({"algorithm.network.head.bias": torch.zeros(4)}))


def retype_tensor(folder):
    rewrite(folder, lambda t: t.update({"algorithm.network.head.bias": torch.zeros(3).double()}))


def reshape_momentum(folder):
    rewrite(folder, lambda t: t.update({"optimizer.0.momentum_buffer": torch.zeros(4)}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "sha256"),
        (flip_a_byte, "sha256"),
        (empty, "sha256"),
        (remove_tensors, "not readable"),
        (truncate_json, "JSON file is not readable"),
        (list_json, "JSON file is not readable"),
        (lambda folder: edit_json(folder, step=10), "edited"),
        (lambda folder: edit_json(folder, fingerprint="0" * 64), "edited"),
        (lambda folder: edit_json(folder, sha256="0" * 64), "sha256"),
        (drop_tensor, "missing"),
        (drop_momentum, "missing"),
        (reshape_tensor, r"float32 \(4,\), not float32 \(3,\)"),
        (retype_tensor, r"float64 \(3,\), not float32 \(3,\)"),
        (reshape_momentum, r"optimizer.0.momentum_buffer is float32 \(4,\)"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(saved, damage, message):
    damage(saved)
    probe = Probe()
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    with pytest.raises(InputError, match=message) as raised:
        checkpoints(saved).load(probe, sgd(probe))
    assert "step-00000020" in str(raised.value)
    assert "go back to step 10" in str(raised.value)
    assert "\n" not in str(raised.value)
    for name, value in probe.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "other"}, "its algorithm is probe, this run's is other"),
        ({"data": "0" * 64}, "its data is fff.*, this run's is 000"),
        ({"split": "0" * 64}, "its label split is 555.*, this run's is 000"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(saved, change, message):
    own = checkpoints(saved)
    other = replace(own, identity=replace(own.identity, **change))
    with pytest.raises(InputError, match=message) as raised:
        other.load(Probe())
    assert "step-00000020" in str(raised.value)


def test_a_checkpoint_of_another_version_is_refused(saved):
    edit_json(saved, format=1, fastssl="0.0.9")
    with pytest.raises(InputError, match=r"format 1 of fastssl 0.0.9, fastssl .* reads format 2"):
        checkpoints(saved).load(Probe())


def test_a_checkpoint_under_another_name_is_refused(saved):
    for old, new in zip(files(saved), files(saved, step=30), strict=True):
        old.rename(new)
    with pytest.raises(InputError, match="of step 20"):
        checkpoints(saved).load(Probe())
