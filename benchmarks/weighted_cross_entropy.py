"""weighted_cross_entropy against plain PyTorch.

N rows, C classes; no weight is 0.
"""

from collections.abc import Iterator

import torch

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import weighted_cross_entropy
from fastssl.ops.weighted_cross_entropy import weighted_cross_entropy_reference

CASES = [(512, 10), (4096, 100)]
EMPTY = (1, 2)


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    logits = normal(N, C, device=device, dtype=dtype)
    targets = torch.arange(N, device=device) % C
    inputs = [logits, targets, torch.linspace(0.5, 1, N, device=device, dtype=dtype)]
    yield Implementation("fastssl", weighted_cross_entropy, inputs)
    yield Implementation("eager", weighted_cross_entropy_reference, inputs)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Logits, targets and weights read, gradient written."""
    return {
        "forward": Work(bytes=N * C * size + N * (8 + size), flops=0),
        "backward": Work(bytes=N * C * size, flops=0),
    }
