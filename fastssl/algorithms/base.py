"""What an algorithm is: an objective over a batch, with the networks and the state it needs.

V views of an image for the student (the first is weak, the others hard) and T more, weak ones, for
its teacher; B rows a batch of which the first L are labeled; N images, K channels, H x W pixels, C
classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from fastssl.algorithms.loss import Loss
from fastssl.algorithms.muscle import Muscle
from fastssl.models import Backbone


@dataclass(frozen=True)
class Batch:
    """One step's images, on the device: labeled rows first, then unlabeled ones."""

    views: Tensor  # [V+T,B,K,H,W], normalised; views[0] is the weak one
    labels: Tensor  # int64 [L], of rows [0, L)
    index: Tensor  # int64 [B], the rows' positions among the training images


@dataclass(frozen=True)
class State:
    """Where training stands."""

    step: int  # steps done
    epoch: int  # passes done over the unlabeled images (the labeled ones if there are no others)


class Algorithm(nn.Module):
    """Networks plus the objective that trains them.

    What it changes over time (a teacher, an ensemble) it keeps in parameters and buffers, so that
    its state_dict is all of it. A subclass defines `objective`, and the rest where it differs.

    Args:
        network: the student, the network that is trained.
        config: of the subclass's `config_type`.
        muscle: the term that makes MUSCLE of it, and its hard views; None for the algorithm alone.
        num_images: training images, for an algorithm that keeps something of each.
    """

    config_type: ClassVar[type]  # its frozen dataclass of hyper-parameters
    needs_unlabeled: ClassVar[bool] = True
    moves_images: ClassVar[bool] = False  # adds small perturbations, which bfloat16 would round
    hard_views: int = 0  # of each image, beside the weak one
    teacher_views: int = 0  # T

    def __init__(
        self, network: Backbone, config: Any, muscle: Muscle | None = None, num_images: int = 0
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.muscle = muscle
        if muscle is not None:
            self.needs_unlabeled = True
            self.hard_views = muscle.hard_views

    def loss(self, batch: Batch) -> Loss:
        """The objective on one batch, to be minimised.

        The student's views go through it together: one forward, one batch-norm batch.
        """
        V, B = 1 + self.hard_views, batch.views.shape[1]
        logits = self.network(batch.views[:V].flatten(0, 1))[0].unflatten(0, (V, B))
        loss = self.objective(logits, batch)
        return loss if self.muscle is None else self.muscle(loss, logits)

    def objective(self, logits: Tensor, batch: Batch) -> Loss:
        """The objective, given the student's logits [V,B,C] for the batch."""
        raise NotImplementedError

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
        """Called before the first step of each pass over the images."""

    def after_step(self, state: State) -> None:
        """Called after each optimiser step."""
