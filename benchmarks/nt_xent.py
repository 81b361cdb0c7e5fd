"""nt_xent against plain PyTorch and the quotient of exponentials that it is often written as.

N pairs, D features, both views differentiated.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import nt_xent
from fastssl.ops.nt_xent import nt_xent_reference

CASES = [(512, 128), (2048, 128)]
EMPTY = (1, 1)


def quotient(features_a: Tensor, features_b: Tensor, temperature: float = 0.5) -> Tensor:
    """The usual form: exponentials [2N, 2N], masked by a copy without the diagonal, summed."""
    z = F.normalize(torch.cat([features_a, features_b]))
    similarity = torch.exp(z @ z.T / temperature)
    M = len(z)
    others = ~torch.eye(M, dtype=torch.bool, device=z.device)
    denominators = similarity.masked_select(others).view(M, M - 1).sum(1)
    a, b = z.chunk(2)
    positives = torch.exp((a * b).sum(1) / temperature)
    return -(torch.cat([positives, positives]) / denominators).log().mean()


def matrix_products(features_a: Tensor, features_b: Tensor) -> Tensor:
    """The products alone by the BLAS behind torch, [2N, 2N]: a floor for anything built on it."""
    z = torch.cat([features_a, features_b])
    return z @ z.T


def implementations(
    N: int, D: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    a, noise = (normal(N, D, device=device, dtype=dtype, seed=seed) for seed in (0, 1))
    b = (a + noise).detach().requires_grad_()
    yield Implementation("fastssl", nt_xent, (a, b))
    yield Implementation("eager", nt_xent_reference, (a, b))
    yield Implementation("quotient of exponentials", quotient, (a, b))
    yield Implementation("matrix products", matrix_products, (a, b), check=False)


def work(N: int, D: int, size: int) -> dict[str, Work]:
    """Features read, gradients written; half a product forward, a whole one backward."""
    M = 2 * N
    return {
        "forward": Work(bytes=M * D * size, flops=M**2 * D),
        "backward": Work(bytes=2 * M * D * size, flops=2 * M**2 * D),
    }
