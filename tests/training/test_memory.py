"""Freed memory stays with the process while a run trains, and no longer."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastssl.training.memory import freed_memory_kept

MIB = 1 << 20
SIZE = 200 * MIB


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(pages[1]) << 10


def kept_after_freeing() -> int:
    before = resident()
    tensor = torch.ones(SIZE, dtype=torch.uint8)
    assert resident() - before > SIZE // 2
    del tensor
    return resident() - before


def check(give_back: bool):
    assert kept_after_freeing() < SIZE // 8
    before = resident()
    with freed_memory_kept(give_back=give_back):
        assert kept_after_freeing() > SIZE // 2
    small = torch.ones(MIB, dtype=torch.uint8)
    del small
    if not give_back:
        assert resident() - before > SIZE // 2
    ctypes.CDLL(None).malloc_trim(0)
    assert kept_after_freeing() < SIZE // 8


@pytest.mark.parametrize("give_back", [True, False])
def test_freed_memory_is_kept_within_and_given_back_after(give_back):
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("another C library than glibc")
    # In a process of its own: in this one, the memory may come from what another test freed.
    subprocess.run([sys.executable, __file__, str(give_back)], check=True)


if __name__ == "__main__":
    check(sys.argv[1] == "True")
