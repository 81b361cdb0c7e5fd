"""joint_distribution against plain PyTorch.

N rows, C classes, three views, as in MUSCLE; all inputs differentiated.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import joint_distribution
from fastssl.ops.joint_distribution import joint_distribution_reference

CASES = [(512, 10), (4096, 100)]
EMPTY = (1, 2)
VIEWS = 3


def product_per_view(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """One joint a view, averaged: V products forward."""
    return torch.stack([joint_distribution_reference(logits_a, view) for view in logits_b]).mean(0)


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    a = normal(N, C, device=device, dtype=dtype)
    b = normal(VIEWS, N, C, device=device, dtype=dtype, seed=1)
    yield Implementation("fastssl", joint_distribution, (a, b))
    yield Implementation("eager", joint_distribution_reference, (a, b))
    yield Implementation("product a view", product_per_view, (a, b))


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Logits read, gradients written; one product forward and two backward for all views."""
    logits = (1 + VIEWS) * N * C
    return {
        "forward": Work(bytes=logits * size, flops=2 * N * C**2),
        "backward": Work(bytes=2 * logits * size, flops=4 * N * C**2),
    }
