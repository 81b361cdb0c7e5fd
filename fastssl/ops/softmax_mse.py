"""The squared difference of predicted probabilities (Π-model, mean teacher).

N rows, C classes. From both logits to the scalar in one call, which makes the gradient, too, if
there may be a backward call: that one only scales it.
"""

import torch
from torch import Tensor

from fastssl.ops.row_loss import check_targeted_logits, needs_gradient, register_loss


def softmax_mse(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Mean squared difference of the rows' softmax from that of a target, which is held constant.

    1/(N C) Σₙⱼ (pₙⱼ - qₙⱼ)², q = softmax(target_logits), p = softmax(logits): the consistency cost
    of the Π-model (Laine and Aila, 2017) and mean teacher (Tarvainen and Valpola, 2017).

    Args:
        target_logits: [N, C]; float32, float64, float16 or bfloat16. They get no gradient.
        logits: [N, C], of the same dtype and device.

    Returns:
        Scalar, a mean over rows and classes; float64 for float64 logits, else float32.

    Raises:
        ValueError: shapes do not match, a dimension is empty, or devices differ.
        TypeError: the dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    check_targeted_logits("softmax_mse", target_logits, logits)
    return torch.ops.fastssl.softmax_mse(target_logits, logits, needs_gradient(logits))[0]


def softmax_mse_reference(target_logits: Tensor, logits: Tensor) -> Tensor:
    """`softmax_mse` in plain PyTorch: the specification."""
    return (logits.softmax(1) - target_logits.detach().softmax(1)).square().mean()


register_loss("softmax_mse", differentiated=1)
