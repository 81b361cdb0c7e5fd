"""Freed memory stays with the process while a run trains, and no longer."""

import ctypes
import re
from pathlib import Path

import pytest
import torch

from fastssl.training.memory import freed_memory_kept

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _only_with_glibc():
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("another C library than glibc")


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(pages[1]) << 10


def kept_after_freeing(size: int) -> int:
    before = resident()
    tensor = torch.ones(size, dtype=torch.uint8)
    assert resident() - before > size // 2
    del tensor
    return resident() - before


def test_freed_memory_is_kept_within_and_given_back_after():
    size = 200 * MIB
    assert kept_after_freeing(size) < size // 8
    with freed_memory_kept():
        assert kept_after_freeing(size) > size // 2
    ctypes.CDLL(None).malloc_trim(0)
    assert kept_after_freeing(size) < size // 8
