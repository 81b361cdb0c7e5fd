"""Cross entropy with a weight for every row (label propagation).

N rows, C classes. From logits to the scalar in one call, which makes the gradient,
too, if there may be a backward call: that one only scales it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.ops.registration import accumulator, check_floats
from fastssl.ops.row_loss import check_logits, needs_gradient, register_loss


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross entropy, summed over rows and divided by their number.

    1/N Σₙ wₙ · -ln pₙ[targetₙ], p = softmax(logits) (Iscen et al., 2019, eq. 11 and 12, whose
    weights are certainty times class weight). It is divided by N, not by the sum of the weights. A
    row of weight 0 adds exactly 0 and has no gradient, whatever its logits.

    Args:
        logits: [N, C]; float32, float64, float16 or bfloat16.
        targets: int64 [N], classes between 0 and C - 1, on the same device. On CUDA they are not
            checked, since that would wait for the device: one out of range makes the loss and that
            row's gradient NaN.
        weights: [N], of the logits' dtype, or float32 beside float16 or bfloat16. They are
            constants: they get no gradient.

    Returns:
        Scalar in nats; float64 for float64 logits, else float32.

    Raises:
        ValueError: shapes do not match, a dimension is empty, devices differ, or on the CPU a
            target is out of range (RuntimeError inside torch.compile).
        TypeError: a dtype is not supported.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    _check(logits, targets, weights)
    needed = needs_gradient(logits)
    if torch.compiler.is_compiling():
        return torch.ops.fastssl.weighted_cross_entropy(logits, targets, weights, needed)[0]
    try:
        return torch.ops.fastssl.weighted_cross_entropy(logits, targets, weights, needed)[0]
    except RuntimeError:
        _check_range(targets, logits.shape[1])
        raise


def weighted_cross_entropy_reference(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """`weighted_cross_entropy` in plain PyTorch, for finite logits: the specification."""
    return (F.cross_entropy(logits, targets, reduction="none") * weights.detach()).mean()


def _check(logits: Tensor, targets: Tensor, weights: Tensor) -> None:
    op = "weighted_cross_entropy"
    check_logits(op, logits)
    check_floats(op, weights=weights)
    if targets.dtype != torch.int64:
        raise TypeError(f"{op}: targets is {targets.dtype}; expected int64")
    if weights.dtype not in (logits.dtype, accumulator(logits.dtype)):
        raise TypeError(f"{op}: logits is {logits.dtype} but weights is {weights.dtype}")
    for name, tensor in (("targets", targets), ("weights", weights)):
        if tensor.shape != logits.shape[:1]:
            raise ValueError(
                f"{op}: logits is {list(logits.shape)} and {name} {list(tensor.shape)}; "
                "expected [N, C] and [N]"
            )
        if tensor.device != logits.device:
            raise ValueError(f"{op}: logits is on {logits.device} but {name} on {tensor.device}")


def _check_range(targets: Tensor, C: int) -> None:
    wrong = (targets < 0) | (targets >= C)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"weighted_cross_entropy: targets[{row}] is {int(targets[row])}; "
            f"expected classes between 0 and {C - 1}"
        )


register_loss("weighted_cross_entropy", differentiated=0)
