"""softmax_hessian_product against plain PyTorch and against differentiating the divergence twice.

N rows, C classes; forward alone, since it has no gradient.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import softmax_hessian_product
from fastssl.ops.softmax_hessian_product import softmax_hessian_product_reference

CASES = [(128, 10), (4096, 100)]
EMPTY = (1, 2)


def double_backward(logits: Tensor, tangent: Tensor) -> Tensor:
    """The Hessian of KL(p ‖ softmax(logits)) times the tangent, by autograd twice."""
    with torch.enable_grad():
        x = logits.detach().requires_grad_()
        log_p = x.log_softmax(1)
        divergence = -(log_p.detach().exp() * log_p).sum()
        (gradient,) = torch.autograd.grad(divergence, x, create_graph=True)
        return torch.autograd.grad(gradient, x, tangent)[0]


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    inputs = [normal(N, C, device=device, dtype=dtype, seed=seed).detach() for seed in (0, 1)]
    yield Implementation("fastssl", softmax_hessian_product, inputs)
    yield Implementation("eager", softmax_hessian_product_reference, inputs)
    yield Implementation("autograd twice", double_backward, inputs)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Logits and tangent read, product written."""
    return {"forward": Work(bytes=3 * N * C * size, flops=0)}
