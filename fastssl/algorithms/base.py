"""What an algorithm is: an objective over a batch, with the networks and the state it needs.

V views (the first is weak, the others hard), B rows a batch of which the first L are labeled,
N images, K channels, H x W pixels, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from fastssl.models import Backbone


@dataclass(frozen=True)
class Batch:
    """One step's images, on the device: labeled rows first, then unlabeled ones."""

    views: Tensor  # float32 [V,B,K,H,W], normalised; views[0] is the weak one
    labels: Tensor  # int64 [L], of rows [0, L)


@dataclass(frozen=True)
class Loss:
    """What `Algorithm.loss` returns; the terms are for the log, nothing waits for their values."""

    total: Tensor  # scalar, differentiable
    terms: dict[str, Tensor]  # detached scalars, still on the device


@dataclass(frozen=True)
class State:
    """Where training stands."""

    step: int  # steps done
    epoch: int  # passes done over the unlabeled images (the labeled ones if there are no others)


class Algorithm(nn.Module):
    """Networks plus the objective that trains them.

    What it changes over time (a teacher, an ensemble) it keeps in parameters and buffers, so that
    its state_dict is all of it. A subclass defines `loss`, and the rest where it differs.
    """

    config_type: ClassVar[type]  # its frozen dataclass of hyper-parameters
    needs_unlabeled: ClassVar[bool]
    hard_views: int = 0  # of each image, beside the weak one

    def __init__(self, network: Backbone, config: Any) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def loss(self, batch: Batch) -> Loss:
        """The objective on one batch, to be minimised."""
        raise NotImplementedError

    def predict(self, images: Tensor) -> Tensor:
        """Logits [N,C] of the network the paper evaluates, for normalised images [N,K,H,W]."""
        return self.network(images)[0]

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Every network that is evaluated, by name; the one the paper evaluates comes first."""
        return {"network": self.predict}

    def before_epoch(self, state: State) -> None:
        """Called before the first step of each pass over the images."""

    def after_step(self, state: State) -> None:
        """Called after each optimiser step."""
