"""entropy against plain PyTorch and against torch.distributions.

N rows, C classes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Categorical

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import entropy
from fastssl.ops.entropy import entropy_reference

CASES = [(512, 10), (4096, 100)]
EMPTY = (1, 2)


def categorical(logits: Tensor) -> Tensor:
    """torch.distributions' entropy."""
    return Categorical(logits=logits, validate_args=False).entropy().mean()


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    logits = normal(N, C, device=device, dtype=dtype)
    yield Implementation("fastssl", entropy, [logits])
    yield Implementation("eager", entropy_reference, [logits])
    yield Implementation("torch.distributions", categorical, [logits])


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Logits read, gradient written."""
    return {
        "forward": Work(bytes=N * C * size, flops=0),
        "backward": Work(bytes=N * C * size, flops=0),
    }
