"""The mutual learning term of CCN and of deep mutual learning. N rows, C classes."""

from torch import Tensor

from fastssl import ops


def mutual_learning(peer_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(peer ‖ own) in nats of the predictions for the same rows (CCN eq. 1 and 4).

    To be minimised by each of two networks in turn, the other being the peer (Zhang et al., 2018).

    Args:
        peer_logits: [N,C], held constant: the peer learns from its own term.
        logits: [N,C].

    Raises:
        ValueError: the shapes do not match, or a dimension is empty.
    """
    return ops.kl_divergence(peer_logits, logits)
