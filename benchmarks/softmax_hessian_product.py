"""softmax_hessian_product against plain PyTorch and against differentiating the divergence twice.

N rows, C classes; forward alone, since it has no gradient. Work: 2 N C values read, N C written.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.harness import Provider
from fastssl.ops import softmax_hessian_product
from fastssl.ops.softmax_hessian_product import softmax_hessian_product_reference

CASES = [(128, 10), (4096, 100)]


def double_backward(logits: Tensor, tangent: Tensor) -> Tensor:
    """The Hessian of KL(p ‖ softmax(logits)) times the tangent, by autograd twice."""
    x = logits.detach().requires_grad_()
    log_p = x.log_softmax(1)
    divergence = -(log_p.detach().exp() * log_p).sum()
    (gradient,) = torch.autograd.grad(divergence, x, create_graph=True)
    return torch.autograd.grad(gradient, x, tangent)[0]


def providers(N: int, C: int, device: torch.device, dtype: torch.dtype) -> Iterator[Provider]:
    """What is timed for one shape; fastssl first."""
    generator = torch.Generator().manual_seed(0)
    x, t = (torch.randn(N, C, generator=generator).to(device, dtype) for _ in range(2))
    yield Provider("fastssl", lambda: [softmax_hessian_product(x, t)])
    yield Provider("eager", lambda: [softmax_hessian_product_reference(x, t)])
    yield Provider("autograd twice", lambda: [double_backward(x, t)])
    tiny = torch.zeros(1, 2, device=device, dtype=dtype)
    yield Provider("empty call", lambda: [softmax_hessian_product(tiny, tiny)], check=False)
