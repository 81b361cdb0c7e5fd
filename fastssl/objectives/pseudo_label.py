"""The unsupervised term of FixMatch. N rows, C classes, V strong views."""

from torch import Tensor

from fastssl import ops


def pseudo_label(
    weak_logits: Tensor, strong_logits: Tensor, threshold: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Cross entropy in nats of strong views against what weak views are sure of, to be minimised.

    The mean is over all rows, those not kept included (FixMatch, Sohn et al., 2020, eq. 4).

    Args:
        weak_logits: [N,C], held constant.
        strong_logits: [N,C] or [V,N,C].
        threshold: probability from which on a row is kept.

    Returns:
        The loss and the fraction of rows kept; 0 and 0 if there is none.

    Raises:
        ValueError: the shapes do not match, a dimension is empty, or the threshold is not between
            0 and 1.
    """
    return ops.pseudo_label_cross_entropy(weak_logits, strong_logits, threshold)
