"""The unsupervised entropy term of CCN, H(h; U). N rows, C classes."""

from torch import Tensor

from fastssl import ops


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of the predictions for unlabeled rows (CCN eq. 2), to be minimised.

    Args:
        logits: [N,C].

    Raises:
        ValueError: logits are not [N,C], or a dimension is empty.
    """
    return ops.entropy(logits)
