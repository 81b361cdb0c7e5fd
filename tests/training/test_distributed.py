"""Two gloo processes: the losses of one, the same run after a stop, and one word when it fails."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.multiprocessing as mp
from two_ranks import EQUAL, STEPS, WITH_BATCH_NORM, rank, train_plainly

from fastssl.algorithms.base import Algorithm
from fastssl.algorithms.ccn import CCN, CCNConfig
from fastssl.errors import InputError
from fastssl.models import build_model
from fastssl.recipes.runs import fit, resume
from fastssl.training.distributed import local_device, synchronise_batch_norm
from fastssl.training.launch import launch
from fastssl.training.record import read_metrics

RANKS = 2


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The folder that two processes have worked in, and what each found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(rank, (str(folder), RANKS), nprocs=RANKS, start_method="spawn")
    return folder, [torch.load(folder / str(n), weights_only=True) for n in range(RANKS)]


@pytest.mark.parametrize("name", EQUAL)
def test_the_losses_are_those_of_one_process(ranks, tmp_path, name):
    folder, found = ranks
    alone = train_plainly(name, tmp_path / "alone")
    expected = read_metrics(tmp_path / "alone" / "metrics.jsonl")
    rows = read_metrics(folder / f"plain-{name}" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    terms = [key for key in expected[-1] if key.startswith("term/")]
    for row, want in zip(rows, expected, strict=True):
        assert row.keys() == want.keys()
        for term in terms:
            assert row[term] == pytest.approx(want[term], rel=0, abs=1e-5), term
        assert row["loss"] == pytest.approx(want["loss"], rel=1e-5)
    assert all(any(row[term] > 1e-4 for row in expected) for term in terms)  # none is idle
    for state in found:
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(state[f"state of {name}"][key], value, rtol=1e-4, atol=1e-5)


def test_means_and_rows_of_all_processes(ranks):
    for found in ranks[1]:
        assert [mean.tolist() for mean in found["means"]] == [[0.5] * 3, [1.0] * 4]
        assert found["gathered"].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_shared_noise_is_one_process_draw(ranks):
    torch.manual_seed(7)
    rows = torch.zeros(6, 2, 4, 5).to(memory_format=torch.channels_last)
    noise = torch.cat([found["noise"] for found in ranks[1]])
    assert torch.equal(noise, torch.randn_like(rows))


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_with_batch_norm_it_trains_to_one_state(ranks, name):
    first, second = (found[f"trained {name}"] for found in ranks[1])
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        assert value.isfinite().all()
    described = json.loads((ranks[0] / f"straight-{name}" / "run.json").read_text())
    assert described["processes"] == RANKS


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_a_stop_of_one_stops_all_and_resumes_bit_for_bit(ranks, name):
    folder, found = ranks
    assert [each[f"stopped {name}"] for each in found] == [True] * RANKS
    last = "checkpoints/step-00000006.safetensors"
    stopped, straight = (folder / f"{kind}-{name}" for kind in ("stopped", "straight"))
    assert (stopped / last).read_bytes() == (straight / last).read_bytes()
    rows = [read_metrics(path / "metrics.jsonl") for path in (stopped, straight)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_one_process_goes_on_where_two_stopped(ranks, name):
    path = ranks[0] / f"alone-{name}"
    run = resume(path, name, {})
    assert run.first_step == 3
    fit(run)
    assert [row["step"] for row in read_metrics(path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_what_fails_in_the_first_ends_the_others_quietly(ranks):
    assert [found["failed"] for found in ranks[1]] == ["InputError: cannot write", "PeerError: "]
    message = "InputError: data: 11 rows a step do not divide by 2 processes"
    assert [found["odd"] for found in ranks[1]] == [message, "PeerError: "]
    assert not (ranks[0] / "odd").exists()


def test_synchronised_batch_norm_is_for_gpus_and_not_for_exact_directions():
    network = build_model("small_cnn", 1, 10)
    ccn = CCN(network, CCNConfig(), num_images=5)
    with pytest.raises(InputError, match="synchronised between GPUs, not on cpu"):
        synchronise_batch_norm(ccn, torch.device("cpu"))
    with pytest.raises(InputError, match="exact adversarial direction cannot pass"):
        synchronise_batch_norm(ccn, torch.device("cuda"))
    synchronise_batch_norm(without := CCN(network, CCNConfig(adversarial=0)), torch.device("cuda"))
    kinds = {type(module) for module in without.modules()}
    assert torch.nn.SyncBatchNorm in kinds
    assert torch.nn.BatchNorm2d not in kinds
    assert not Algorithm.needs_forward_mode


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    from fastssl.algorithms.ranks import ALONE, Ranks

    two = Ranks(1, 2)
    assert local_device(two, torch.device("cpu")) == torch.device("cpu")
    assert local_device(ALONE, torch.device("cuda:1")) == torch.device("cuda:1")
    with pytest.raises(InputError, match="cuda:0 for 2 processes; expected cuda"):
        local_device(two, torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        InputError, match="process 2 of this machine finds no GPU left, there are 1"
    ):
        local_device(two, torch.device("cuda"))


# Each process of `launch` runs one of these; none needs torch.
WRITES = "import os, sys; open(os.path.join(sys.argv[1], os.environ['RANK']), 'w').write(' '.join("
WRITES += "os.environ[k] for k in ('LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR')))"
FAILS = "import os, sys, time; sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(60)"
HEEDS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
open(os.path.join(sys.argv[1], os.environ["RANK"]), "w").close()
time.sleep(60)
"""


def test_launched_processes_know_their_place(tmp_path):
    assert launch([sys.executable, "-c", WRITES, str(tmp_path)], 3) == 0
    assert [(tmp_path / str(n)).read_text() for n in range(3)] == [
        f"{n} 3 127.0.0.1" for n in range(3)
    ]


def test_one_that_fails_ends_the_others(monkeypatch):
    monkeypatch.setattr("fastssl.training.launch.GRACE", 0.1)
    assert launch([sys.executable, "-c", FAILS], 2) == 3


def test_signals_are_passed_on(tmp_path):
    def tell():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    teller = threading.Thread(target=tell)
    teller.start()
    before = signal.getsignal(signal.SIGTERM)
    assert launch([sys.executable, "-c", HEEDS, str(tmp_path)], 2) == 130
    teller.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_devices_starts_them(tmp_path):
    command = [sys.executable, "-m", "fastssl", "train", "muscle", "--labels", "20", "--steps", "2"]
    rows = ["--set", "data.labeled_rows=10", "--set", "data.unlabeled_rows=10", "--device", "cpu"]
    options = [*rows, "--devices", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "in 2 processes" in done.stdout
    assert done.stdout.count("test accuracy") == 1
    assert done.stderr == ""
