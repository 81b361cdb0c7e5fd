"""How the weight of a term rises in the first epochs."""

import math


def ramp_up(epoch: float, epochs: float) -> float:
    """exp(-5 (1 - t)^2) with t = epoch / epochs, 1 from the last of `epochs` on.

    Source: Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", section 3.2.
    """
    t = min(1.0, epoch / epochs) if epochs else 1.0
    return math.exp(-5 * (1 - t) ** 2)
