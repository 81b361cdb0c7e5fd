"""FixMatch: the confident prediction of a weak view is the label of the hard ones.

V views, B rows of which the first L are labeled, C classes. Source: Sohn et al., "FixMatch:
Simplifying Semi-Supervised Learning with Consistency and Confidence", as MUSCLE's section 3 has it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fastssl.algorithms.average import WeightAverage
from fastssl.algorithms.base import Algorithm, Batch, State
from fastssl.algorithms.label_propagation import LabelPropagationConfig
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.muscle import Muscle
from fastssl.errors import InputError
from fastssl.models import Backbone
from fastssl.objectives.pseudo_label import pseudo_label


@dataclass(frozen=True)
class FixMatchConfig:
    """When a prediction counts, how much, and which average is evaluated."""

    threshold: float = 0.95  # tau
    weight: float = 1.0  # lambda_u
    decay: float = 0.999  # of the average of the weights

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(
                f"algorithm.weight: {self.weight}; expected a finite number, 0 or more"
            )
        for key, most in (("threshold", 1), ("decay", math.nextafter(1, 0))):
            value = getattr(self, key)
            if not 0 <= value <= most:
                raise InputError(f"algorithm.{key}: {value}; expected a number from 0 to {most}")


class FixMatch(Algorithm):
    """L = l_s + weight * l_p: l_p the cross entropy of an unlabeled image's hard views.

    Against the class its weak view is given, where that is certain enough. `kept` is the part of
    the unlabeled rows for which it is. Evaluated is the average of the weights, with the student's
    batch-norm statistics.
    """

    config_type = FixMatchConfig
    hard_views = 1

    def __init__(
        self,
        network: Backbone,
        config: FixMatchConfig,
        muscle: Muscle | None = None,
        num_images: int = 0,
        propagation: LabelPropagationConfig | None = None,
    ) -> None:
        super().__init__(network, config, muscle, num_images, propagation)
        self.average = WeightAverage(network, config.decay)

    def objective(self, logits: Tensor, batch: Batch) -> Loss:
        """l_s of the labeled rows and l_p of the others, given logits [V,B,C]."""
        L = len(batch.labels)
        l_s = self.supervised_loss(logits, batch)
        l_p, kept = pseudo_label(logits[0, L:], logits[1:, L:], self.config.threshold)
        return Loss(
            l_s + self.config.weight * l_p,
            {"supervised": l_s.detach(), "pseudo_label": l_p.detach(), "kept": kept.detach()},
        )

    @property
    def evaluated(self) -> Backbone:
        """The average."""
        return self.average.network

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The average, then the student."""
        return {
            "average": lambda images: self.average(images)[0],
            "student": lambda images: self.network(images)[0],
        }

    def after_step(self, state: State) -> None:
        """The average follows."""
        self.average.update(self.network, buffers=True)
