"""batch_norm_leaky_relu against torch's three functions, and against a mere copy of the maps.

N images of K channels and S x S pixels in channels_last order, in training, then 2x2 max pooling:
small_cnn's first two layers and conv_large's last of its first block; no running statistics.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import batch_norm_leaky_relu
from fastssl.ops.registration import accumulator

CASES = [(64, 32, 32), (512, 32, 32), (512, 32, 16), (64, 128, 32)]
EMPTY = (1, 1, 2)


def implementations(
    N: int, K: int, S: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    like = {"device": device, "dtype": accumulator(dtype)}
    # One pixel of each window is far above the others and above 0: rounding chooses no other one.
    steps = torch.tensor([[0.0, 1.0], [3.0, 2.0]], device=device, dtype=dtype)
    maps = normal(N, K, S, S, device=device, dtype=dtype).detach() / 16
    maps += steps.repeat(S // 2, S // 2)
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    inputs = [maps, torch.ones(K, **like).requires_grad_(), torch.zeros(K, **like).requires_grad_()]

    def ours(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return batch_norm_leaky_relu(maps, weight, bias, pool=2)[0]

    def eager(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        normal = F.batch_norm(maps, None, None, weight, bias, training=True)
        return F.max_pool2d(F.leaky_relu_(normal, 0.1), 2)

    yield Implementation("fastssl", ours, inputs)
    yield Implementation("eager", eager, inputs)
    yield Implementation("copy", torch.clone, inputs[:1], check=False)


def work(N: int, K: int, S: int, size: int) -> dict[str, Work]:
    """Maps read and a quarter as much written; back, maps and gradient read, a gradient written."""
    maps = N * K * S**2
    return {
        "forward": Work(bytes=maps * size * 5 // 4, flops=8 * maps),
        "backward": Work(bytes=maps * size * 9 // 4, flops=12 * maps),
    }
