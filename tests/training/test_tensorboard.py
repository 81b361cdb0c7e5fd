"""Event files: every logged value reaches them as it is logged, and their absence is one line."""

import struct
import sys

import pytest

from fastssl.errors import InputError
from fastssl.training.record import MetricsLog, read_metrics
from fastssl.training.tensorboard import event_writer, require_tensorboard


class Recorder:
    """Stands where a SummaryWriter does."""

    def __init__(self):
        self.seen, self.flushed, self.closed = [], [], False

    def add_scalar(self, name, value, step):
        self.seen.append((name, value, step))

    def flush(self):
        self.flushed.append(len(self.seen))

    def close(self):
        self.closed = True


def test_every_value_is_passed_on_at_once(tmp_path):
    events = Recorder()
    log = MetricsLog(tmp_path / "metrics.jsonl", events=events)
    log.append(3, {"loss": 0.5, "term/supervised": 0.25})
    assert events.flushed == [2]
    log.append(6, {"accuracy/test/network": 0.75})
    log.close()
    assert events.closed
    rows = read_metrics(tmp_path / "metrics.jsonl")
    logged = [(k, v, r["step"]) for r in rows for k, v in r.items() if k not in ("step", "seconds")]
    assert events.seen == logged


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for call in (require_tensorboard, lambda: event_writer(tmp_path / "events", after_step=0)):
        with pytest.raises(InputError, match=r"pip install 'fastssl\[tensorboard\]'"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_event_files_hold_the_values(tmp_path):
    """The records of the file, read as tensorboard does, lengths and all."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event

    log = MetricsLog(tmp_path / "m.jsonl", events=event_writer(tmp_path / "events", after_step=0))
    log.append(4, {"loss": 0.5})
    (file,) = (tmp_path / "events").iterdir()
    data, found = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found |= {value.tag: (event.step, value) for value in event.summary.value}
        data = data[16 + length :]
    log.close()
    step, value = found["loss"]
    assert step == 4
    assert value.simple_value == 0.5 or list(value.tensor.float_val) == [0.5]
