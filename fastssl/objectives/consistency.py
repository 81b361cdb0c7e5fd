"""The consistency term of the Π-model and mean teacher. N rows, C classes."""

from typing import Literal

from torch import Tensor

from fastssl import ops

COSTS = {"mse": ops.softmax_mse, "kl": ops.kl_divergence}


def consistency(
    target_logits: Tensor, logits: Tensor, cost: Literal["mse", "kl"] = "mse"
) -> Tensor:
    """How far predictions are from a target's, a teacher's or another view's: to be minimised.

    Args:
        target_logits: [N,C], held constant.
        logits: [N,C].
        cost: "mse", the squared difference of probabilities, averaged over classes, too (mean
            teacher, Tarvainen and Valpola, 2017), or "kl", KL(target ‖ prediction) in nats.

    Raises:
        ValueError: the shapes do not match, a dimension is empty, or the cost is unknown.
    """
    if cost not in COSTS:
        raise ValueError(f"consistency: cost is {cost!r}; expected {' or '.join(map(repr, COSTS))}")
    return COSTS[cost](target_logits, logits)
