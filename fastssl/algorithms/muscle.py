"""MUSCLE: any algorithm's objective plus one term, mutual information between views of an image.

V views (the first is weak, the others hard), B rows, C classes. Source: Xie et al., "MUSCLE:
Strengthening Semi-Supervised Learning Via Concurrent Unsupervised Learning Using Mutual Information
Maximization", eq. 4 to 8.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from fastssl.algorithms.loss import Loss
from fastssl.algorithms.ramps import ramp_up
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.errors import InputError
from fastssl.objectives.mutual_information import mutual_information


@dataclass(frozen=True)
class Muscle:
    """L - alpha * I for the L of any algorithm; I over every row, labeled or not (eq. 7, 8)."""

    alpha: float = 1.0  # weight of the mutual information, once the ramp has ended
    hard_views: int = 3  # of each image, each paired with its weak view
    ramp_epochs: float = 0.0  # in which the weight rises
    supervise_hard: bool = False  # l_s of the hard views too; the paper has the weak one alone

    def __post_init__(self) -> None:
        for key in ("alpha", "ramp_epochs"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"muscle.{key}: {value}; expected a finite number, 0 or more")
        if self.hard_views < 1:
            raise InputError(f"muscle.hard_views: {self.hard_views}; expected 1 or more")

    def weight(self, epoch: int) -> float:
        """Of the mutual information, after so many epochs."""
        return self.alpha * ramp_up(epoch, self.ramp_epochs)

    def __call__(self, loss: Loss, logits: Tensor, weight: Tensor, ranks: Ranks = ALONE) -> Loss:
        """The loss with the term of all processes' rows, given logits [V,B,C] of the views."""
        information = mutual_information(logits[0], logits[1:], group=ranks.group)
        return Loss(
            loss.total - weight * information,
            loss.terms | {"mutual_information": information.detach()},
        )
