"""Fixtures of all tests."""

import os

import pytest
import torch


def pytest_configure(config):
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture
def gpu() -> torch.device:
    """The GPU; without one the test is skipped, or fails with FASTSSL_REQUIRE_CUDA=1."""
    if not torch.cuda.is_available():
        if os.environ.get("FASTSSL_REQUIRE_CUDA") == "1":
            pytest.fail("FASTSSL_REQUIRE_CUDA=1, but torch sees no GPU")
        pytest.skip("no GPU")
    return torch.device("cuda")


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    """Each device."""
    if request.param == "cuda":
        return request.getfixturevalue("gpu")
    return torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers, whichever tests ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
