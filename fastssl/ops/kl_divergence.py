"""The Kullback-Leibler divergence of predictions from targets (CCN eq. 1 and 4).

N rows, C classes. From both logits to the scalar in one call, which makes the gradient, too, if
there may be a backward call: that one only scales it.
"""

import torch
from torch import Tensor

from fastssl.ops.row_loss import check_targeted_logits, needs_gradient, register_loss


def kl_divergence(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Mean divergence of the rows' softmax from that of a target, which is held constant.

    KL(q ‖ p) = 1/N Σₙⱼ qₙⱼ (ln qₙⱼ - ln pₙⱼ), q = softmax(target_logits), p = softmax(logits) (CCN,
    eq. 1 and 4; VAT's divergence), where 0 ln 0 = 0. Exactly 0 where the logits are the same.

    Args:
        target_logits: [N, C]; float32, float64, float16 or bfloat16. They get no gradient.
        logits: [N, C], of the same dtype and device.

    Returns:
        Scalar KL in nats, infinite where a class of the target is masked by -inf in the logits
        alone; float64 for float64 logits, else float32.

    Raises:
        ValueError: shapes do not match, a dimension is empty, or devices differ.
        TypeError: the dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    check_targeted_logits("kl_divergence", target_logits, logits)
    return torch.ops.fastssl.kl_divergence(target_logits, logits, needs_gradient(logits))[0]


def kl_divergence_reference(target_logits: Tensor, logits: Tensor) -> Tensor:
    """`kl_divergence` in plain PyTorch, for finite logits: the specification."""
    log_q = target_logits.detach().log_softmax(1)
    return (log_q.exp() * (log_q - logits.log_softmax(1))).sum(1).mean()


register_loss("kl_divergence", differentiated=1)
