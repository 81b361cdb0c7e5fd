"""How a quantity changes over training, as functions of the step alone."""

import math


def cosine(step: int, steps: int) -> float:
    """Factor on the learning rate of step 0..steps-1: half a cosine from 1 down to 0 at `steps`."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))
