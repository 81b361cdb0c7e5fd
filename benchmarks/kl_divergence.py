"""kl_divergence against plain PyTorch and against its own function for it.

N rows, C classes; the target is constant.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import kl_divergence
from fastssl.ops.kl_divergence import kl_divergence_reference

CASES = [(512, 10), (4096, 100)]
EMPTY = (1, 2)


def kl_div(target_logits: Tensor, logits: Tensor) -> Tensor:
    """torch.nn.functional's divergence of logarithms."""
    log_p, log_q = logits.log_softmax(1), target_logits.log_softmax(1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    like = {"device": device, "dtype": dtype}
    inputs = [normal(N, C, **like, seed=1).detach(), normal(N, C, **like)]
    yield Implementation("fastssl", kl_divergence, inputs)
    yield Implementation("eager", kl_divergence_reference, inputs)
    yield Implementation("F.kl_div", kl_div, inputs)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Both logits read, gradient written."""
    return {
        "forward": Work(bytes=2 * N * C * size, flops=0),
        "backward": Work(bytes=N * C * size, flops=0),
    }
