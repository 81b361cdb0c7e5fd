"""mutual_information against the forms it is written in elsewhere.

N rows, C classes, one view, both inputs differentiated.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import mutual_information
from fastssl.ops.mutual_information import mutual_information_reference

CASES = [(512, 10), (4096, 100), (16384, 1000)]
GPU_CASES = [(512, 10), (4096, 100), (65536, 1000)]
EMPTY = (1, 2)
OUTER_PRODUCT_LIMIT = 4e9  # bytes of its N x C x C temporary, of which it makes several


def outer_product(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """The usual form since IIC (Ji et al., 2019): every row's outer product is made and summed."""
    p_a, p_b = logits_a.softmax(1), logits_b.softmax(1)
    joint = (p_a.unsqueeze(2) * p_b.unsqueeze(1)).sum(0)  # [N, C, C] -> [C, C]
    joint = (joint + joint.T) / 2
    joint = (joint / joint.sum()).clamp_min(torch.finfo(joint.dtype).eps)
    marginal = joint.sum(1)
    return (joint * (joint.log() - marginal.log()[:, None] - marginal.log())).sum()


def matrix_products(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """The products alone by the BLAS behind torch, [C, C]: a floor for anything built on it."""
    return logits_a.T @ logits_b


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    a, noise = (normal(N, C, device=device, dtype=dtype, seed=seed) for seed in (0, 1))
    b = (a + noise).detach().requires_grad_()  # views agree: I of independent ones is all rounding
    yield Implementation("fastssl", mutual_information, (a, b))
    yield Implementation("eager", mutual_information_reference, (a, b))
    if N * C * C * dtype.itemsize <= OUTER_PRODUCT_LIMIT:
        yield Implementation("outer product (IIC)", outer_product, (a, b))
    yield Implementation("matrix products", matrix_products, (a, b), check=False)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Logits read, gradients written; one product forward, two backward."""
    return {
        "forward": Work(bytes=2 * N * C * size, flops=2 * N * C**2),
        "backward": Work(bytes=4 * N * C * size, flops=4 * N * C**2),
    }
