"""200 damaged checkpoints: each refused in one line that names it, nothing loaded or executed."""

import hashlib
import json
import os
import pickle
import random
import shutil

import pytest
import torch
from probe import Probe, checkpoints, run, sgd
from safetensors.torch import load, save

from fastssl.errors import InputError

EACH = 8  # draws of every kind of damage
ONES = torch.ones(2)
VALUES = (None, True, -1, 2**70, 0.5, float("nan"), "", "x", [], {}, [[0]], {"a": None})


class Payload:
    """Pickled, it would leave a file behind when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


class Files:
    """The last checkpoint's two files, and the one's before it."""

    def __init__(self, folder, step=20):
        stem = folder / "checkpoints" / f"step-{step:08d}"
        self.folder = folder
        self.tensors, self.json = stem.with_suffix(".safetensors"), stem.with_suffix(".json")

    def forge(self, change_tensors=None, change_header=None):
        """Rewrite both as someone would who knows the format, with the right sha256."""
        header = json.loads(self.json.read_text())
        del header["sha256"]
        tensors = load(self.tensors.read_bytes())
        if change_tensors:
            change_tensors(tensors)
            header["tensors"] = sorted(tensors)
        if change_header:
            change_header(header)
        self.put(save(tensors, metadata={"header": json.dumps(header)}), header)

    def put(self, data, header=None):
        """Tensors of these bytes, and JSON that vouches for them."""
        if header is None:
            header = json.loads(self.json.read_text())
        self.tensors.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.json.write_text(json.dumps({**header, "sha256": sha256}))


def truncate(path, draw):
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data) - 1)])  # the JSON's last byte is a newline


def flip(path, draw):
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data) - 1)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def overwrite(path, draw):
    data = bytearray(path.read_bytes())
    first = draw.randrange(len(data) - 64)
    data[first : first + 64] = draw.randbytes(64)
    path.write_bytes(data)


def rename_field(header, draw):
    header["_"] = header.pop(draw.choice(sorted(header)))


def retype_field(header, draw):
    name = draw.choice(["format", "step", "algorithm", "data", "split", "tensors", "fastssl"])
    old = header[name]
    while (value := draw.choice(VALUES)) == old or (type(value) is str and name == "fastssl"):
        pass
    header[name] = value


def edit_json(files, draw):
    fields = json.loads(files.json.read_text())
    draw.choice([rename_field, retype_field])(fields, draw)
    files.json.write_text(json.dumps(fields))


def pick(tensors, draw, prefix):
    return draw.choice([name for name in sorted(tensors) if name.startswith(prefix)])


def reshape(tensors, draw, prefix):
    name = pick(tensors, draw, prefix)
    old = tensors[name]
    other = torch.zeros((*old.shape, 2), dtype=old.dtype)
    tensors[name] = draw.choice([other, old.to(torch.complex64), old[..., None].clone()])


def garble_generator(tensors, draw):
    state = tensors["generator.cpu"]
    tensors["generator.cpu"] = draw.choice(
        [state[:, :-1].clone(), state.float(), state[0], torch.full_like(state, 255), state[:0]]
    )


def lie_about_offsets(files, draw):
    data = files.tensors.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = draw.choice([name for name in header if name != "__metadata__"])
    first, last = header[name]["data_offsets"]
    header[name]["data_offsets"] = draw.choice([[first, last + 10**9], [last, first], [0, 1], []])
    text = json.dumps(header).encode()
    files.put(len(text).to_bytes(8, "little") + text + data[8 + size :])


def swap(files, draw):
    other = Files(files.folder, 10)
    which = draw.choice(["tensors", "json", "both"])
    for name in ("tensors", "json") if which == "both" else (which,):
        shutil.copy(getattr(other, name), getattr(files, name))


FOREIGN = (
    *("foreign", "algorithm.network.foreign", "optimizer.0.foreign", "optimizer.0", "optimizer."),
    *(
        "optimizer.99.momentum_buffer",
        "optimizer.x.momentum_buffer",
        "optimizer.00.momentum_buffer",
    ),
    *("generator.tpu", "generator.", "two\nlines", "optimizer.0.momentum_buffer.x"),
)
DAMAGES = {
    "truncated tensors": lambda f, d: truncate(f.tensors, d),
    "truncated JSON": lambda f, d: truncate(f.json, d),
    "a bit of the tensors": lambda f, d: flip(f.tensors, d),
    "a bit of the JSON": lambda f, d: flip(f.json, d),
    "a stretch of the tensors": lambda f, d: overwrite(f.tensors, d),
    "a stretch of the JSON": lambda f, d: overwrite(f.json, d),
    "swapped with the one before": swap,
    "edited JSON": edit_json,
    "a field renamed in both": lambda f, d: f.forge(None, lambda h: rename_field(h, d)),
    "a field retyped in both": lambda f, d: f.forge(None, lambda h: retype_field(h, d)),
    "a foreign field": lambda f, d: f.forge(None, lambda h: h.update({f"x{d.random()}": 1})),
    "a foreign tensor": lambda f, d: f.forge(lambda t: t.update({d.choice(FOREIGN): ONES})),
    "a network's tensor missing": lambda f, d: f.forge(lambda t: t.pop(pick(t, d, "algorithm."))),
    "a network's tensor reshaped": lambda f, d: f.forge(lambda t: reshape(t, d, "algorithm.")),
    "a moment reshaped": lambda f, d: f.forge(lambda t: reshape(t, d, "optimizer.")),
    "a moment renamed": lambda f, d: f.forge(
        lambda t: t.update({"optimizer.0.exp_avg": t.pop(pick(t, d, "optimizer.0"))})
    ),
    "no generators": lambda f, d: f.forge(lambda t: t.pop("generator.cpu")),
    "a generator garbled": lambda f, d: f.forge(lambda t: garble_generator(t, d)),
    "offsets that lie": lie_about_offsets,
    "a header of nothing": lambda f, d: f.put(
        save({"x": ONES}, metadata=d.choice([None, {}, {"header": "[]"}, {"header": "{"}]))
    ),
    "another file": lambda f, d: f.put(d.choice([b"", b"\x80" * 9, d.randbytes(99), b"{}" * 50])),
    "JSON of another kind": lambda f, d: f.json.write_bytes(
        d.choice([b"", b"[]", b"0", b"null", b'"sha256"', b"\xff\xfe", b'{"a":' * 10**5])
    ),
    "pickled tensors": lambda f, d: f.put(pickle.dumps(Payload(f.folder / "executed"))),
    "pickled JSON": lambda f, d: f.json.write_bytes(pickle.dumps(Payload(f.folder / "executed"))),
    "a folder": lambda f, d: replace_by_folder(d.choice([f.tensors, f.json])),
}  # fmt: skip


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints of steps 10 and 20; it is only copied."""
    folder = tmp_path_factory.mktemp("saved")
    probe = Probe()
    run(probe, sgd(probe), folder)
    return folder


@pytest.mark.parametrize("number", range(EACH))
@pytest.mark.parametrize("damage", DAMAGES)
def test_it_is_refused_in_one_line_and_changes_nothing(saved, tmp_path, damage, number):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    DAMAGES[damage](Files(folder), random.Random(f"{damage} {number}"))
    probe = Probe()
    optimizer = sgd(probe)
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    generator = torch.get_rng_state()
    with pytest.raises(InputError) as raised:
        checkpoints(folder).load(probe, optimizer)
    assert "step-00000020" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400
    assert not (folder / "executed").exists()
    assert all(torch.equal(value, before[name]) for name, value in probe.state_dict().items())
    assert not optimizer.state
    assert torch.equal(torch.get_rng_state(), generator)


def test_there_are_200():
    assert EACH * len(DAMAGES) == 200


def test_the_payload_would_have_been_executed(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()
