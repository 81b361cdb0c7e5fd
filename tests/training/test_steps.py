"""A step waits for nothing: no number leaves the device between two log steps."""

import pytest
import torch
from tiny_runs import ALGORITHMS, STEPS, tiny

from fastssl.data.batches import TwoStreams
from fastssl.recipes.runs import fit

WAITING = (
    *("item", "tolist", "cpu", "numpy", "nonzero", "unique", "masked_select"),
    *("__bool__", "__int__", "__float__", "__index__"),
)


@pytest.fixture
def between_log_steps(monkeypatch):
    """Call the first function when the first step has its batch, the second before the last one."""

    def install(begin, end):
        at = TwoStreams.at

        def batch(self, step):
            if step == STEPS - 1:
                end()
            found = at(self, step)
            if step == 0:
                begin()
            return found

        monkeypatch.setattr(TwoStreams, "at", batch)

    return install


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_is_read_off_the_device(tmp_path, monkeypatch, between_log_steps, algorithm):
    armed, calls = [], []

    def watched(name):
        original = getattr(torch.Tensor, name)

        def call(self, *arguments, **options):
            if armed:
                calls.append(name)
            return original(self, *arguments, **options)

        return call

    def end():
        assert torch.tensor(True)  # the watch is on, and sees this
        armed.clear()

    for name in WAITING:
        monkeypatch.setattr(torch.Tensor, name, watched(name))
    between_log_steps(lambda: armed.append(True), end)
    fit(tiny(algorithm, tmp_path))
    assert calls == ["__bool__"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_host_waits_for_no_gpu(gpu, tmp_path, between_log_steps, algorithm):
    between_log_steps(
        lambda: torch.cuda.set_sync_debug_mode("error"),
        lambda: torch.cuda.set_sync_debug_mode("default"),
    )
    try:
        fit(tiny(algorithm, tmp_path, device=str(gpu)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
