"""softmax_mse against plain PyTorch and against its own function for it.

N rows, C classes; the target is constant.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import softmax_mse
from fastssl.ops.softmax_mse import softmax_mse_reference

CASES = [(512, 10), (4096, 100)]
EMPTY = (1, 2)


def mse_loss(target_logits: Tensor, logits: Tensor) -> Tensor:
    """torch.nn.functional's squared error of probabilities."""
    return F.mse_loss(logits.softmax(1), target_logits.softmax(1))


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    like = {"device": device, "dtype": dtype}
    inputs = [normal(N, C, **like, seed=1).detach(), normal(N, C, **like)]
    yield Implementation("fastssl", softmax_mse, inputs)
    yield Implementation("eager", softmax_mse_reference, inputs)
    yield Implementation("F.mse_loss", mse_loss, inputs)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Both logits read, gradient written."""
    return {
        "forward": Work(bytes=2 * N * C * size, flops=0),
        "backward": Work(bytes=N * C * size, flops=0),
    }
