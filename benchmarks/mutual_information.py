"""mutual_information against the forms it is written in elsewhere.

N rows, C classes, one view, both inputs differentiated. Work: three products of 2 N C^2 flops (one
forward, two backward), and 4 N C logits and gradients read or written.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.harness import Provider, forward_backward
from fastssl.ops import mutual_information
from fastssl.ops.mutual_information import mutual_information_reference

CASES = [(512, 10), (4096, 100), (16384, 1000)]
OUTER_PRODUCT_LIMIT = 4e9  # bytes of its N x C x C temporary, of which it makes several


def outer_product(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """The usual form since IIC (Ji et al., 2019): every row's outer product is made and summed."""
    p_a, p_b = logits_a.softmax(1), logits_b.softmax(1)
    joint = (p_a.unsqueeze(2) * p_b.unsqueeze(1)).sum(0)  # [N, C, C] -> [C, C]
    joint = (joint + joint.T) / 2
    joint = (joint / joint.sum()).clamp_min(torch.finfo(joint.dtype).eps)
    marginal = joint.sum(1)
    return (joint * (joint.log() - marginal.log()[:, None] - marginal.log())).sum()


def matrix_products(logits_a: Tensor, logits_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three products alone, by the BLAS behind torch: a floor for anything built on it."""
    weights = torch.ones(logits_a.shape[1], logits_a.shape[1]).to(logits_a)
    return logits_a.T @ logits_b, logits_a @ weights, logits_b @ weights


def providers(N: int, C: int, device: torch.device, dtype: torch.dtype) -> Iterator[Provider]:
    """What is timed for one shape; fastssl first."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(N, C, generator=generator).to(device, dtype) for _ in range(2))
    yield Provider("fastssl", forward_backward(mutual_information, a, b))
    yield Provider("eager", forward_backward(mutual_information_reference, a, b))
    if N * C * C * a.element_size() <= OUTER_PRODUCT_LIMIT:
        yield Provider("outer product (IIC)", forward_backward(outer_product, a, b))
    yield Provider("3 matrix products", lambda: matrix_products(a, b), check=False)
    tiny = torch.zeros(1, 2, device=device, dtype=dtype)
    yield Provider("empty call", forward_backward(mutual_information, tiny, tiny), check=False)
