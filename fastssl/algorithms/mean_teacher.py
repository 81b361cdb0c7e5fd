"""Mean Teacher: the student agrees with the average of its own past.

V views, B rows of which the first L are labeled, C classes. Source: Tarvainen and Valpola, "Mean
teachers are better role models", as MUSCLE's section 3 and its reference implementation have it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastssl.algorithms.average import WeightAverage
from fastssl.algorithms.base import Algorithm, Batch, State
from fastssl.algorithms.label_propagation import LabelPropagationConfig
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.ramps import ramp_up
from fastssl.errors import InputError
from fastssl.models import Backbone
from fastssl.objectives.consistency import consistency


@dataclass(frozen=True)
class MeanTeacherConfig:
    """The weight of the teacher's word, and how long its memory is."""

    weight: float = 100.0  # beta (MUSCLE eq. 8), once the ramp has ended
    ramp_epochs: float = 5.0
    decay: float = 0.97  # mu of the average (MUSCLE eq. 2)

    def __post_init__(self) -> None:
        for key in ("weight", "ramp_epochs"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"algorithm.{key}: {value}; expected a finite number, 0 or more")
        if not 0 <= self.decay < 1:
            raise InputError(f"algorithm.decay: {self.decay}; expected 0 or more, below 1")


class MeanTeacher(Algorithm):
    """L = l_s + beta * l_c: l_c between the teacher's and the student's predictions of every row.

    The teacher sees a weak view of its own, with batch statistics of its own, and is the network
    that is evaluated. l_s is a sum over the labeled rows divided by all B rows: the weight of 100
    is tied to it.
    """

    config_type = MeanTeacherConfig
    divides_by_batch = True
    teacher_views = 1

    def __init__(
        self,
        network: Backbone,
        config: MeanTeacherConfig,
        muscle: Muscle | None = None,
        num_images: int = 0,
        propagation: LabelPropagationConfig | None = None,
    ) -> None:
        super().__init__(network, config, muscle, num_images, propagation)
        self.teacher = WeightAverage(network, config.decay)
        self.register_buffer("consistency_weight", torch.zeros(()))
        self.before_epoch(State(step=0, epoch=0))

    def objective(self, logits: Tensor, batch: Batch) -> Loss:
        """One target of the teacher's for all of the student's views, given logits [V,B,C]."""
        V = len(logits)
        with torch.no_grad():
            target, _ = self.teacher(batch.views[V])
        l_s = self.supervised_loss(logits, batch)
        l_c = consistency(target.expand_as(logits).flatten(0, 1), logits.flatten(0, 1))
        return Loss(
            l_s + self.consistency_weight * l_c,
            {"supervised": l_s.detach(), "consistency": l_c.detach()},
        )

    @property
    def evaluated(self) -> Backbone:
        """The teacher."""
        return self.teacher.network

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The teacher, then the student."""
        return {
            "teacher": lambda images: self.teacher(images)[0],
            "student": lambda images: self.network(images)[0],
        }

    def before_epoch(self, state: State) -> None:
        """The weight of l_c rises in the first epochs."""
        super().before_epoch(state)
        ramp = ramp_up(state.epoch, self.config.ramp_epochs)
        self.consistency_weight.fill_(self.config.weight * ramp)

    def after_step(self, state: State) -> None:
        """The teacher follows."""
        self.teacher.update(self.network)
