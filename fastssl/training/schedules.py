"""How a quantity changes over training: factors from 1 down, functions of the step alone."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Stages:
    """A run's consecutive stages, each with a learning-rate schedule and passes of its own."""

    starts: tuple[int, ...]  # ascending steps, the first is 0
    steps: int  # of the run

    def at(self, step: int) -> tuple[int, int, int]:
        """The number of the stage a step is in, steps of that stage before it, its steps in all."""
        number = max(i for i, start in enumerate(self.starts) if start <= step)
        start, end = (*self.starts, self.steps)[number : number + 2]
        return number, step - start, end - start


def cosine(step: int, steps: int, horizon: float = 1.0) -> float:
    """Half a cosine from 1 at step 0 down to 0 at `horizon * steps`."""
    return 0.5 * (1 + math.cos(math.pi * step / (horizon * steps)))


def seven_sixteenths(step: int, steps: int) -> float:
    """7/16 of a cosine's half period, from 1 to 0.195 at `steps` (FixMatch, section 2.4)."""
    return math.cos(7 * math.pi * step / (16 * steps))


def linear_end(step: int, steps: int, share: float) -> float:
    """1 until the last `share` of the steps, then on a line to 0 at `steps`."""
    return min(1.0, (steps - step) / (share * steps)) if share else 1.0


def warmup(step: int, steps: int, share: float) -> float:
    """Up to 1 on a line in the first `share` of the steps."""
    return min(1.0, (step + 1) / (share * steps)) if share else 1.0
