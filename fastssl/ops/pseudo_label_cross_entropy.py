"""Cross entropy against confident pseudo-labels (FixMatch).

N rows, C classes, V strong views. From logits to the scalars in one call, which makes the gradient,
too, if there may be a backward call: that one only scales it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.ops.registration import accumulator, check_floats
from fastssl.ops.row_loss import (
    fake_gradient,
    fake_scalar,
    needs_gradient,
    register_scaled_gradient,
)


def pseudo_label_cross_entropy(
    weak_logits: Tensor, strong_logits: Tensor, threshold: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of strong views against the classes that weak views are sure of.

    1/(V N) Σᵥₙ 1[max qₙ ≥ threshold] · -ln pᵥₙ[argmax qₙ], q = softmax(weak_logits), p =
    softmax(strong_logits) (FixMatch, Sohn et al., 2020, eq. 4). The mean is over all rows, kept or
    not; of classes that tie the first is taken. With nothing kept it is exactly 0, and so are the
    gradients.

    Args:
        weak_logits: [N, C]; float32, float64, float16 or bfloat16. They get no gradient.
        strong_logits: [N, C] or [V, N, C], of the same dtype and device.
        threshold: probability from which on a pseudo-label is kept, between 0 and 1.

    Returns:
        The loss in nats and the fraction of rows kept, scalars, the latter without a gradient;
        float64 for float64 logits, else float32.

    Raises:
        ValueError: shapes do not match, a dimension is empty, devices differ, or the threshold is
            not between 0 and 1.
        TypeError: the dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    _check(weak_logits, strong_logits, threshold)
    loss, kept, _ = torch.ops.fastssl.pseudo_label_cross_entropy(
        weak_logits, strong_logits, threshold, needs_gradient(strong_logits)
    )
    return loss, kept


def pseudo_label_cross_entropy_reference(
    weak_logits: Tensor, strong_logits: Tensor, threshold: float = 0.95
) -> tuple[Tensor, Tensor]:
    """`pseudo_label_cross_entropy` in plain PyTorch: the specification."""
    q = weak_logits.detach().softmax(1, dtype=accumulator(weak_logits.dtype))
    confidence, labels = q.max(1)
    kept = (confidence >= threshold).to(strong_logits.dtype)
    views = strong_logits.reshape(-1, *weak_logits.shape)  # [V, N, C]
    rows = F.cross_entropy(
        views.flatten(0, 1), labels.expand(len(views), -1).flatten(), reduction="none"
    )
    return (rows.view(len(views), -1) * kept).mean(), kept.mean(dtype=q.dtype)


def _check(weak_logits: Tensor, strong_logits: Tensor, threshold: float) -> None:
    op = "pseudo_label_cross_entropy"
    check_floats(op, weak_logits=weak_logits, strong_logits=strong_logits)
    weak, strong = weak_logits.shape, strong_logits.shape
    if len(weak) != 2 or len(strong) not in (2, 3) or strong[-2:] != weak:
        raise ValueError(
            f"{op}: weak_logits is {list(weak)} and strong_logits {list(strong)}; "
            "expected [N, C] and [N, C] or [V, N, C]"
        )
    if 0 in strong:
        raise ValueError(
            f"{op}: weak_logits {list(weak)} and strong_logits {list(strong)} must not be empty"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(f"{op}: threshold is {threshold}; expected a number between 0 and 1")


@torch.library.register_fake("fastssl::pseudo_label_cross_entropy")
def _(weak_logits, strong_logits, threshold, needs_gradient):
    scalars = fake_scalar(weak_logits), fake_scalar(weak_logits)
    return *scalars, fake_gradient(strong_logits, needs_gradient)


register_scaled_gradient("pseudo_label_cross_entropy", differentiated=1)
