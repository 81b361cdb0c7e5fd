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


def check():
    assert kept_after_freeing() < SIZE // 8
    with freed_memory_kept():
        assert kept_after_freeing() > SIZE // 2
    ctypes.CDLL(None).malloc_trim(0)
    assert kept_after_freeing() < SIZE // 8


def test_freed_memory_is_kept_within_and_given_back_after():
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("another C library than glibc")
    # In a process of its own: in this one, the memory may come from what another test freed.
    subprocess.run([sys.executable, __file__], check=True)


if __name__ == "__main__":
    check()
