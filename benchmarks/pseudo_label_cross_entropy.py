"""pseudo_label_cross_entropy against plain PyTorch.

N rows, C classes, one strong view; nearly all rows are kept, as late in training.
"""

from collections.abc import Iterator

import torch

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import pseudo_label_cross_entropy
from fastssl.ops.pseudo_label_cross_entropy import pseudo_label_cross_entropy_reference

CASES = [(512, 10), (4096, 100)]
EMPTY = (1, 2)


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    like = {"device": device, "dtype": dtype}
    sure = 16 * torch.eye(C, **like)[torch.arange(N, device=device) % C]
    weak = normal(N, C, **like, seed=1).detach() + sure
    inputs = [weak, normal(N, C, **like)]
    yield Implementation("fastssl", pseudo_label_cross_entropy, inputs)
    yield Implementation("eager", pseudo_label_cross_entropy_reference, inputs)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Both logits read, gradient written."""
    return {
        "forward": Work(bytes=2 * N * C * size, flops=0),
        "backward": Work(bytes=N * C * size, flops=0),
    }
