"""Fixtures of all tests."""

import os
from collections import defaultdict

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption(
        "--sample", type=int, help="run only so many cases of each test, evenly spread"
    )


def pytest_configure(config):
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, min(2, (os.cpu_count() or 1) // workers)))


@pytest.hookimpl(trylast=True)  # after -k and -m have chosen
def pytest_collection_modifyitems(config, items):
    if count := config.getoption("sample"):
        cases = defaultdict(list)
        for item in items:
            cases[item.parent, getattr(item, "originalname", item.name)].append(item)
        items.clear()
        for own in cases.values():
            items += [own[i] for i in sorted({k * len(own) // count for k in range(count)})]


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
