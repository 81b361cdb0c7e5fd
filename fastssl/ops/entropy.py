"""The entropy of predictions (CCN eq. 2).

N rows, C classes. From logits to the scalar in one call, which makes the gradient,
too, if there may be a backward call: that one only scales it.
"""

import torch
from torch import Tensor

from fastssl.ops.row_loss import check_logits, needs_gradient, register_loss


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the rows' softmax, to be minimised for confident predictions.

    H = -1/N Σₙⱼ pₙⱼ ln pₙⱼ, p = softmax(logits) (CCN, eq. 2), where 0 ln 0 = 0: a class masked by
    -inf contributes nothing and has no gradient.

    Args:
        logits: [N, C]; float32, float64, float16 or bfloat16.

    Returns:
        Scalar H in nats, between 0 and ln C; float64 for float64 logits, else float32.

    Raises:
        ValueError: logits are not [N, C], or empty.
        TypeError: the dtype is not supported.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    check_logits("entropy", logits)
    return torch.ops.fastssl.entropy(logits, needs_gradient(logits))[0]


def entropy_reference(logits: Tensor) -> Tensor:
    """`entropy` in plain PyTorch, for finite logits: the specification."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


register_loss("entropy", differentiated=0)
