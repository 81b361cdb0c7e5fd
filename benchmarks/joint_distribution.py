"""joint_distribution against plain PyTorch.

N rows, C classes, three views, as in MUSCLE. Work: three products of 2 N C^2 flops (one forward,
two backward, whatever the number of views).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.harness import Provider, forward_backward
from fastssl.ops import joint_distribution
from fastssl.ops.joint_distribution import joint_distribution_reference

CASES = [(512, 10), (4096, 100)]
VIEWS = 3


def product_per_view(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """One joint a view, averaged: V products forward."""
    return torch.stack([joint_distribution_reference(logits_a, view) for view in logits_b]).mean(0)


def providers(N: int, C: int, device: torch.device, dtype: torch.dtype) -> Iterator[Provider]:
    """What is timed for one shape; fastssl first."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(N, C, generator=generator).to(device, dtype)
    b = torch.randn(VIEWS, N, C, generator=generator).to(device, dtype)
    weights = torch.randn(C, C, generator=generator).to(device, dtype)

    def weighted(function: Callable) -> Callable:
        return lambda *logits: (function(*logits) * weights).sum()

    yield Provider("fastssl", forward_backward(weighted(joint_distribution), a, b))
    yield Provider("eager", forward_backward(weighted(joint_distribution_reference), a, b))
    yield Provider("eager, a product a view", forward_backward(weighted(product_per_view), a, b))
