"""Label propagation: a second stage on labels that spread over a graph of the images' features.

B rows of which the first L are labeled, N training images, C classes. Source: Iscen et al., "Label
Propagation for Deep Semi-supervised Learning", with what its reference implementation does.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastssl import ops
from fastssl.algorithms.state import State, TrainingImages
from fastssl.errors import InputError


@dataclass(frozen=True)
class LabelPropagationConfig:
    """How long the first stage is, and how the labels spread in the second."""

    first_stage: float = 0.5  # share of the steps, without propagated labels
    k: int = 50  # neighbours of an image
    exponent: float = 3.0  # of their similarity
    alpha: float = 0.99  # share that an image takes from its neighbours
    tolerance: float = 1e-6  # of the diffusion
    max_iterations: int = 20
    max_class_weight: float | None = None  # where ζ is cut off, for a class that few labels reach

    def __post_init__(self) -> None:
        for key, holds, expected in (
            ("first_stage", 0 <= self.first_stage <= 1, "a share from 0 to 1"),
            ("k", self.k >= 1, "1 or more"),
            ("exponent", 0 < self.exponent < math.inf, "a number above 0"),
            ("alpha", 0 <= self.alpha < 1, "0 or more, below 1"),
            ("tolerance", 0 <= self.tolerance < math.inf, "a finite number, 0 or more"),
            ("max_iterations", self.max_iterations >= 1, "1 or more"),
            (
                "max_class_weight",
                self.max_class_weight is None or 1 <= self.max_class_weight < math.inf,
                "a finite number, 1 or more, or none",
            ),
        ):
            if not holds:
                raise InputError(f"propagation.{key}: {getattr(self, key)}; expected {expected}")


class LabelPropagation(nn.Module):
    """l_s of any algorithm in two stages; the algorithm's other terms are as they were.

    In the first the labeled rows' cross entropy, as a sum divided by all B rows. In the second all
    rows', by propagated labels: Σ w ζ CE / B, w an image's weight and ζ that of its class.
    """

    def __init__(self, config: LabelPropagationConfig, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("second_stage", torch.zeros((), dtype=torch.bool))
        self.register_buffer("labels", torch.zeros(num_images, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(num_images))  # w ζ
        self.register_buffer("mean_weight", torch.zeros(()))  # of w over the images trained on
        self.register_buffer("reached", torch.zeros(()))  # images whose w is above 0
        self.is_second_stage = False  # the buffer on the host, where no step waits for it
        self.register_load_state_dict_post_hook(_read_stage)

    def forward(self, logits: Tensor, index: Tensor) -> Tensor:
        """The second stage's l_s of logits [B,C] of the weak views of rows at positions [B]."""
        return ops.weighted_cross_entropy(logits, self.labels[index], self.weights[index])

    def terms(self) -> dict[str, Tensor]:
        """For the log: the mean weight of an image, and how many the labels reach."""
        if not self.is_second_stage:
            return {}
        return {"mean_weight": self.mean_weight, "reached": self.reached}

    def before_epoch(self, state: State, network: nn.Module) -> None:
        """In the second stage, propagate the labels anew by the student's features.

        Raises:
            ValueError: the second stage has no `state.images`.
        """
        self.second_stage.fill_(state.stage > 0)
        self.is_second_stage = state.stage > 0
        if self.is_second_stage:
            if state.images is None:
                raise ValueError("before_epoch: state.images is None; label propagation needs them")
            self._propagate(state.images, network)

    @torch.no_grad()
    def _propagate(self, images: TrainingImages, network: nn.Module) -> None:
        """Labels and weights of the images trained on; others have weight 0."""
        was_training = network.training
        network.eval()
        outputs = [network(batch) for batch in images.batches()]
        network.train(was_training)
        config = self.config
        found = ops.propagate_labels(
            torch.cat([features for _, features in outputs]),
            images.labels,
            num_classes=outputs[0][0].shape[1],
            k=config.k,
            exponent=config.exponent,
            alpha=config.alpha,
            tolerance=config.tolerance,
            max_iterations=config.max_iterations,
        )
        class_weights = found.class_weights
        if config.max_class_weight is not None:
            class_weights = class_weights.clamp_max(config.max_class_weight)
        weights = found.weights * class_weights[found.labels]
        self.weights.zero_()
        self.weights[images.index] = weights.to(self.weights.dtype)
        self.labels[images.index] = found.labels
        self.mean_weight.copy_(found.weights.mean())
        self.reached.copy_((found.weights > 0).sum())


def _read_stage(propagation: LabelPropagation, _: object) -> None:
    """After a state dict was loaded, know its stage on the host."""
    propagation.is_second_stage = bool(propagation.second_stage)
