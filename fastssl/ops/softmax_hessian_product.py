"""A Hessian of the KL divergence times a tangent: the power iteration of VAT.

N rows, C classes. Softmax and product are one call; no probabilities leave it.
"""

import torch
from torch import Tensor

from fastssl.ops.registration import check_floats, register_no_gradient


def softmax_hessian_product(logits: Tensor, tangent: Tensor) -> Tensor:
    """The Hessian of KL(softmax(x) ‖ softmax(x + r)) in r at r = 0, times a tangent, row by row.

    (diag p - p pᵀ) t = p (t - ⟨p, t⟩) with p = softmax(x). Between a network's Jacobian J and its
    transpose it gives Jᵀ (diag p - p pᵀ) J d, the Hessian of VAT's divergence at zero perturbation
    (Miyato et al., 2018, section 3.3) times a direction d, without finite differences. A row that
    is all but certain keeps its relative precision.

    Args:
        logits: x [N, C]; float32, float64, float16 or bfloat16.
        tangent: t [N, C], of the same dtype and device.

    Returns:
        [N, C], of the logits' dtype. Without a gradient: to autograd it is a constant.

    Raises:
        ValueError: shapes do not match, a dimension is empty, or devices differ.
        TypeError: the dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD.
    """
    check_floats("softmax_hessian_product", logits=logits, tangent=tangent)
    if logits.dim() != 2 or tangent.shape != logits.shape or 0 in logits.shape:
        raise ValueError(
            f"softmax_hessian_product: logits is {list(logits.shape)} and tangent "
            f"{list(tangent.shape)}; expected [N, C] both, not empty"
        )
    return torch.ops.fastssl.softmax_hessian_product(logits, tangent)


def softmax_hessian_product_reference(logits: Tensor, tangent: Tensor) -> Tensor:
    """`softmax_hessian_product` in plain PyTorch: the specification."""
    p = logits.softmax(1)
    return p * (tangent - (p * tangent).sum(1, keepdim=True))


@torch.library.register_fake("fastssl::softmax_hessian_product")
def _(logits, tangent):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


register_no_gradient("softmax_hessian_product")
