"""What an algorithm is: an objective over a batch, with the networks and the state it needs.

V views of an image for the student (the first is weak, the others hard) and T more, weak ones, for
its teacher; B rows a batch of which the first L are labeled; N images, K channels, H x W pixels, C
classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastssl.algorithms.contrastive import Contrastive
from fastssl.algorithms.label_propagation import LabelPropagation, LabelPropagationConfig
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.algorithms.state import State
from fastssl.models import Backbone
from fastssl.objectives.supervised import supervised

__all__ = ["Algorithm", "Batch", "Loss", "State"]


@dataclass(frozen=True)
class Batch:
    """One step's images, on the device: labeled rows first, then unlabeled ones."""

    views: Tensor  # [V+T,B,K,H,W], normalised; views[0] is the weak one
    labels: Tensor  # int64 [L], of rows [0, L)
    index: Tensor  # int64 [B], the rows' positions among the training images


@dataclass(frozen=True)
class NoSettings:
    """The hyper-parameters of an algorithm without any."""


class Algorithm(nn.Module):
    """Networks plus the objective that trains them.

    What it changes over time (a teacher, an ensemble) it keeps in parameters and buffers, so that
    its state_dict is all of it. A subclass defines `objective`, and the rest where it differs; its
    `before_epoch` calls this class's.

    Args:
        network: the student, the network that is trained.
        config: of the subclass's `config_type`.
        muscle: the term that makes MUSCLE of it, and its hard views; None for the algorithm alone.
        num_images: training images, for an algorithm that keeps something of each.
        propagation: of a second stage on propagated labels; None for an algorithm of one stage.
    """

    config_type: ClassVar[type] = NoSettings  # its frozen dataclass of hyper-parameters
    needs_labels: ClassVar[bool] = True  # else no image has one, and the head learns no class
    needs_unlabeled: ClassVar[bool] = True
    moves_images: ClassVar[bool] = False  # adds small perturbations, which bfloat16 would round
    hard_views: int = 0  # of each image, beside the weak one
    teacher_views: int = 0  # T
    divides_by_batch: ClassVar[bool] = False  # whether l_s is a sum over L rows divided by B
    needs_forward_mode: bool = False  # AD, through its networks
    ranks: Ranks = ALONE  # the processes that train it, each with its share of a step's rows

    def __init__(
        self,
        network: Backbone,
        config: Any,
        muscle: Muscle | None = None,
        num_images: int = 0,
        propagation: LabelPropagationConfig | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.muscle = muscle
        if muscle is not None:
            self.needs_unlabeled = True
            self.hard_views = muscle.hard_views
            weight = torch.tensor(muscle.weight(epoch=0), dtype=network.head.weight.dtype)
            self.register_buffer("muscle_weight", weight)
        self.propagation = None
        if propagation is not None:
            self.needs_unlabeled = True
            self.propagation = LabelPropagation(propagation, num_images)
        self.contrastive: Contrastive | None = None

    def add_contrastive(self, term: Contrastive) -> None:
        """One more term: NT-Xent of the student's features, projected by layers of its own."""
        self.contrastive = term
        projection = term.projection_head(self.network.head.in_features)
        self.projection = projection.to(self.network.head.weight)
        self.needs_unlabeled = True
        self.hard_views = max(self.hard_views, term.hard_views)

    def loss(self, batch: Batch) -> Loss:
        """The objective on one batch, to be minimised.

        The student's views go through it together: one forward, one batch-norm batch.
        """
        V, B = 1 + self.hard_views, batch.views.shape[1]
        outputs = self.network(batch.views[:V].flatten(0, 1))
        logits, features = (x.unflatten(0, (V, B)) for x in outputs)
        loss = self.objective(logits, batch)
        if self.propagation is not None:
            loss = replace(loss, terms=loss.terms | self.propagation.terms())
        if self.muscle is not None:
            loss = self.muscle(loss, logits, self.muscle_weight, self.ranks)
        if self.contrastive is not None:
            loss = self.contrastive(loss, self.projection(features))
        return loss

    def objective(self, logits: Tensor, batch: Batch) -> Loss:
        """The objective, given the student's logits [V,B,C] for the batch."""
        raise NotImplementedError

    @property
    def evaluated(self) -> Backbone:
        """The network the paper evaluates, whose logits are the first of `predictors`."""
        return self.network

    def supervised_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """l_s from real labels or propagated ones, given the student's logits [V,B,C].

        Of the weak views; with `muscle.supervise_hard` real labels count for the hard ones too.
        """
        if self.propagation is not None and self.propagation.is_second_stage:
            return self.propagation(logits[0], batch.index)
        L, B = len(batch.labels), logits.shape[1]
        every = self.muscle is not None and self.muscle.supervise_hard
        own = logits[:, :L] if every else logits[:1, :L]
        l_s = supervised(own.flatten(0, 1), batch.labels.repeat(len(own)))
        divides = self.divides_by_batch or self.propagation is not None
        return l_s * (L / B) if divides else l_s

    def predict(self, images: Tensor) -> Tensor:
        """Logits [N,C] of the network the paper evaluates, for normalised images [N,K,H,W]."""
        return next(iter(self.predictors().values()))(images)

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Every network that is evaluated, by name; the one the paper evaluates comes first."""
        return {"network": lambda images: self.network(images)[0]}

    def compare(self, classes: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
        """What is counted at every evaluation beside accuracies, by name.

        Args:
            classes: int64 [N] that each of `predictors` gives the images.
            labels: int64 [N].
        """
        return {}

    def before_epoch(self, state: State) -> None:
        """Called before the first step of each pass over the images, and of each stage."""
        if self.muscle is not None:
            self.muscle_weight.fill_(self.muscle.weight(state.epoch))
        if self.propagation is not None:
            self.propagation.before_epoch(state, self.network)

    def after_step(self, state: State) -> None:
        """Called after each optimiser step."""
