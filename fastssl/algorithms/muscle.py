"""MUSCLE: the supervised objective plus one term, mutual information between views of an image.

Source: Xie et al., "MUSCLE: Strengthening Semi-Supervised Learning Via Concurrent Unsupervised
Learning Using Mutual Information Maximization", eq. 4 to 7.
"""

import math
from dataclasses import dataclass

from fastssl.algorithms.base import Algorithm, Batch, Loss
from fastssl.errors import InputError
from fastssl.models import Backbone
from fastssl.objectives.mutual_information import mutual_information
from fastssl.objectives.supervised import supervised


@dataclass(frozen=True)
class MuscleConfig:
    """The two numbers of MUSCLE that are not of the data, the views or the optimiser."""

    alpha: float = 1.0  # weight of the mutual information (eq. 7)
    hard_views: int = 3  # of each image, each paired with its weak view

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise InputError(f"algorithm.alpha: {self.alpha}; expected a finite number, 0 or more")
        if self.hard_views < 1:
            raise InputError(f"algorithm.hard_views: {self.hard_views}; expected 1 or more")


class Muscle(Algorithm):
    """L = l_s - alpha * I: l_s on the labeled weak views, I over every row, labeled or not."""

    config_type = MuscleConfig
    needs_unlabeled = True

    def __init__(self, network: Backbone, config: MuscleConfig) -> None:
        super().__init__(network, config)
        self.hard_views = config.hard_views

    def loss(self, batch: Batch) -> Loss:
        """All views go through the network together: one forward, one batch-norm batch."""
        V, B = batch.views.shape[:2]
        logits = self.network(batch.views.flatten(0, 1))[0].unflatten(0, (V, B))
        weak, hard = logits[0], logits[1:]
        l_s = supervised(weak[: len(batch.labels)], batch.labels)
        information = mutual_information(weak, hard)
        return Loss(
            total=l_s - self.config.alpha * information,
            terms={"supervised": l_s.detach(), "mutual_information": information.detach()},
        )
