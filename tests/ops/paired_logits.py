"""Cases for the ops that take two predictions, logits_a [N, C] and logits_b [N, C] or [V, N, C]."""

import itertools

import pytest
import torch
from op_checks import non_contiguous
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# One row, two, a prime, and sizes beyond a block of every kernel; two classes, the papers' 10, 100
# and 1000, and 401, which no vector width divides.
SIZES = list(itertools.product((1, 2, 41, 512, 4096), (2, 10, 100, 401, 1000), (1, 3)))
LARGE = 512 * 1000  # N x C from which one dtype pair is enough
# The same for the checker, which runs one thread at a time: both sides of the kernels' own limits
# (32 classes; 128 rows, 4 rows or a warp's 32 columns a block).
CHECKER_SIZES = [
    (1, 2, 1),
    (2, 10, 3),
    (130, 3, 3),
    (300, 10, 1),
    (41, 32, 3),
    (6, 33, 3),
    (9, 150, 1),
]
CHECKER_ORDERS = ("forward", "reverse", "1")


def make(N: int, C: int, V: int, dtype=torch.float32, device="cpu", spread=2.0) -> list[Tensor]:
    """Random logits; with V = 1 logits_b has no view dimension."""
    shape = (N, C) if V == 1 else (V, N, C)
    return [(torch.randn(s) * spread).to(device, dtype) for s in ((N, C), shape)]


def cases() -> list:
    """(backend, N, C, V, dtype, strided) for every size and dtype, contiguous or not.

    The largest are tested in float32 alone.
    """
    found = []

    def add(backend: str, N: int, C: int, V: int, dtype: torch.dtype, strided: bool) -> None:
        layout = "strided" if strided else "contiguous"
        name = f"{backend}-{N}x{C}x{V}-{str(dtype).removeprefix('torch.')}-{layout}"
        found.append(pytest.param(backend, N, C, V, dtype, strided, id=name))

    for backend, size, dtype, strided in itertools.product(
        ("cpu", "cuda"), SIZES, DTYPES, (False, True)
    ):
        if size[0] * size[1] < LARGE or (dtype == torch.float32 and not strided):
            add(backend, *size, dtype, strided)
    for order, size, dtype in itertools.product(CHECKER_ORDERS, CHECKER_SIZES, DTYPES):
        add(f"cuda_on_cpu_{order}", *size, dtype, False)
    return found


def spread(inputs: list[Tensor], strided: bool) -> list[Tensor]:
    """The inputs, behind strides if asked for."""
    return [non_contiguous(x) for x in inputs] if strided else inputs


def spikes(C: int) -> list[Tensor]:
    """Row i predicts class i alone: only the thread that owns the column sees its maximum."""
    spike = 1e4 * torch.eye(C)
    return [spike, spike.roll(1, 0).expand(2, C, C)]


def extremes(C: int = 10) -> dict[str, list[Tensor]]:
    """Predictions that break a careless implementation."""
    one_hot = torch.full((64, C), -1e4)
    one_hot[:, 3] = 1e4
    other = one_hot.clone()
    other[0] = torch.randn(C)
    unpredicted = torch.randn(64, C)
    unpredicted[:, 7] = -1e4
    huge = torch.randn(64, C).sign() * 1e4
    masked = torch.randn(64, C)
    masked[:, 2] = -torch.inf
    return {
        "all but one row one-hot": [other, one_hot],
        "a class nobody predicts": [unpredicted, unpredicted.clone()],
        "logits of ±1e4": [huge, huge.flip(0)],
        "a class masked by -inf": [masked, masked.flip(0)],
        "all logits equal": [torch.zeros(64, C), torch.zeros(64, C)],
    }
