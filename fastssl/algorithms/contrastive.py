"""The contrastive term of MUSCLE's figure 2, c and d, on any algorithm's objective.

V views (the first is weak, the others hard), B rows, D features, P projected ones.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from fastssl.algorithms.loss import Loss
from fastssl.errors import InputError
from fastssl.objectives.contrastive import contrastive


@dataclass(frozen=True)
class Contrastive:
    """L + weight * NT-Xent for the L of any algorithm; over every row, labeled or not.

    The pairs are those of MUSCLE's mutual information: the weak view with each hard one. The paper
    leaves open weight, temperature and projection. Ours: weight 1, and SimCLR's temperature on
    CIFAR-10, layers and width of the projection (Chen et al., 2020, sections 2.1 and B.9). Of
    several processes each tells its own rows apart.
    """

    weight: float = 1.0
    temperature: float = 0.5
    projection: int = 128  # P
    hard_views: int = 1  # of each image; with MUSCLE on the same objective, the larger number

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(
                f"contrastive.weight: {self.weight}; expected a finite number, 0 or more"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"contrastive.temperature: {self.temperature}; expected above 0")
        for key in ("projection", "hard_views"):
            if getattr(self, key) < 1:
                raise InputError(f"contrastive.{key}: {getattr(self, key)}; expected 1 or more")

    def projection_head(self, num_features: int) -> nn.Sequential:
        """D features to the P that are compared: linear, ReLU, linear (SimCLR)."""
        return nn.Sequential(
            nn.Linear(num_features, num_features),
            nn.ReLU(inplace=True),
            nn.Linear(num_features, self.projection),
        )

    def __call__(self, loss: Loss, projected: Tensor) -> Loss:
        """The loss with the term, given the views' projected features [V,B,P]."""
        value = contrastive(projected[0], projected[1:], self.temperature)
        return Loss(loss.total + self.weight * value, loss.terms | {"contrastive": value.detach()})
