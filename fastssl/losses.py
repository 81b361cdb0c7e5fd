"""The papers' losses as modules, for a training loop of your own.

N rows, C classes, D features, V views. They take logits, not probabilities, average over rows
unless `reduction="sum"`, and come last-argument-target as torch's own losses do. There is no
`reduction="none"`: a loss of every row is what the compiled ops never store. What they raise on
wrong shapes or dtypes is what the functions of `fastssl.ops` raise.
"""

from typing import Any, Literal

import torch.distributed as dist
from torch import Tensor, nn

from fastssl import ops
from fastssl.objectives.consistency import consistency
from fastssl.objectives.tangents import logits_of
from fastssl.objectives.virtual_adversarial import (
    Direction,
    forward_and_perturbation,
    virtual_adversarial,
)

__all__ = [
    "ConsistencyLoss",
    "ContrastiveLoss",
    "EntropyLoss",
    "FixMatchLoss",
    "MutualInformationLoss",
    "MutualLearningLoss",
    "VirtualAdversarialLoss",
]

Reduction = Literal["mean", "sum"]


class _RowLoss(nn.Module):
    """A loss of rows: their mean or their sum."""

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'sum'")
        self.reduction = reduction

    def _reduced(self, mean: Tensor, count: int) -> Tensor:
        return mean if self.reduction == "mean" else mean * count


class MutualInformationLoss(nn.Module):
    """Minus the mutual information of the classes predicted for two views (MUSCLE eq. 4 to 6).

    It is of the batch as a whole, so there is nothing to reduce: between -ln C and 0.

    Args:
        group: processes whose rows make up one batch with one joint distribution; their gradients
            are to be averaged, as DistributedDataParallel does.

    Shape:
        logits_a [N, C]; logits_b [N, C] or [V, N, C], views that share one joint; a scalar.

    Example:
        >>> weak = torch.tensor([[20.0, 0.0], [0.0, 20.0]], requires_grad=True)
        >>> hard = torch.stack([weak, weak + 1.0])
        >>> loss = MutualInformationLoss()(weak, hard)
        >>> loss.backward()
        >>> round(loss.item(), 4)  # -ln 2: each view tells the other's class
        -0.6931
    """

    def __init__(self, *, group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        self.group = group

    def forward(self, logits_a: Tensor, logits_b: Tensor) -> Tensor:
        return -ops.mutual_information(logits_a, logits_b, group=self.group)


class EntropyLoss(_RowLoss):
    """Entropy in nats of the predictions (CCN eq. 2): small where they are sure.

    Shape:
        logits [N, C]; a scalar.

    Example:
        >>> round(EntropyLoss()(torch.zeros(3, 10)).item(), 4)  # ln 10
        2.3026
        >>> round(EntropyLoss(reduction="sum")(torch.zeros(3, 10)).item(), 4)
        6.9078
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, logits: Tensor) -> Tensor:
        return self._reduced(ops.entropy(logits), len(logits))


class MutualLearningLoss(_RowLoss):
    """KL(peer ‖ own) in nats, with which each of two networks learns from the other (CCN eq. 1).

    The peer's logits get no gradient.

    Shape:
        logits [N, C], peer_logits [N, C]; a scalar.

    Example:
        >>> criterion = MutualLearningLoss()
        >>> one, two = nn.Linear(4, 3), nn.Linear(4, 3)
        >>> images = torch.randn(8, 4)
        >>> logits_one, logits_two = one(images), two(images)
        >>> loss = criterion(logits_one, logits_two) + criterion(logits_two, logits_one)
        >>> loss.backward()
        >>> criterion(logits_one, logits_one).item()
        0.0
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, logits: Tensor, peer_logits: Tensor) -> Tensor:
        return self._reduced(ops.kl_divergence(peer_logits, logits), len(logits))


class ConsistencyLoss(_RowLoss):
    """How far predictions are from a teacher's or another view's, which get no gradient.

    Args:
        cost: "mse", the squared difference of probabilities, whose mean is over classes, too (Mean
            Teacher), or "kl", KL(target ‖ prediction) in nats.
        reduction: "mean" or "sum".

    Shape:
        logits [N, C], target_logits [N, C]; a scalar.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[50.0, 0.0]])
        >>> round(ConsistencyLoss()(student, teacher).item(), 4)
        0.25
        >>> round(ConsistencyLoss("kl")(student, teacher).item(), 4)  # ln 2
        0.6931
    """

    def __init__(self, cost: Literal["mse", "kl"] = "mse", *, reduction: Reduction = "mean"):
        super().__init__(reduction)
        self.cost = cost

    def forward(self, logits: Tensor, target_logits: Tensor) -> Tensor:
        mean = consistency(target_logits, logits, self.cost)
        return self._reduced(mean, logits.numel() if self.cost == "mse" else len(logits))


class FixMatchLoss(_RowLoss):
    """Cross entropy of strong views against the classes that weak views are sure of.

    The mean is over all rows and views, those not kept included (FixMatch, eq. 4).

    Args:
        threshold: probability from which on a row is kept.
        reduction: "mean" or "sum".

    Shape:
        weak_logits [N, C], which gets no gradient; strong_logits [N, C] or [V, N, C]. Returns the
        loss and the fraction of rows kept, two scalars; both are exactly 0 if none is.

    Example:
        >>> weak = torch.tensor([[9.0, 0.0], [0.1, 0.0]])  # sure of the first row only
        >>> strong = torch.zeros(2, 2, requires_grad=True)
        >>> loss, kept = FixMatchLoss(threshold=0.95)(weak, strong)
        >>> loss.backward()
        >>> round(loss.item(), 4), kept.item()  # ln 2, of one row in two
        (0.3466, 0.5)
    """

    def __init__(self, threshold: float = 0.95, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.threshold = threshold

    def forward(self, weak_logits: Tensor, strong_logits: Tensor) -> tuple[Tensor, Tensor]:
        mean, kept = ops.pseudo_label_cross_entropy(weak_logits, strong_logits, self.threshold)
        return self._reduced(mean, strong_logits.shape[:-1].numel()), kept


class ContrastiveLoss(_RowLoss):
    """NT-Xent of SimCLR: two views of an image are near each other, all other images far.

    Args:
        temperature: what cosine similarities are divided by.
        reduction: "mean" or "sum", of the 2N rows.

    Shape:
        features_a [N, D], features_b [N, D], of any length; a scalar.

    Example:
        >>> features = torch.eye(4)
        >>> same = ContrastiveLoss(temperature=0.1)(features, features)
        >>> other = ContrastiveLoss(temperature=0.1)(features, features.roll(1, 0))
        >>> bool(same < 0.001 < other)
        True
    """

    def __init__(self, temperature: float = 0.5, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.temperature = temperature

    def forward(self, features_a: Tensor, features_b: Tensor) -> Tensor:
        mean = ops.nt_xent(features_a, features_b, self.temperature)
        return self._reduced(mean, 2 * len(features_a))


class VirtualAdversarialLoss(_RowLoss):
    """KL in nats between predictions for images and for their worst small perturbation.

    The clean forward is shared: the module runs it and returns its outputs beside the loss, for
    your other losses. `fastssl.objectives.virtual_adversarial` says how the perturbation is found,
    what the network must be, and what is raised where it is not.

    Args:
        radius: L2 norm of the perturbation of an image, in units of the images.
        direction: "gauss_newton", exact, or "finite_difference", for a network whose modules have
            no forward-mode AD.
        xi: the step of "finite_difference".
        reduction: "mean" or "sum".

    Shape:
        network, which returns logits [N, C] or a tuple whose first entry they are; images [N, ...],
        one batch-norm group. Returns the loss, a scalar, and what network(images) returned.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3))
        >>> labeled, labels, unlabeled = torch.randn(6, 4), torch.arange(6) % 3, torch.randn(32, 4)
        >>> smoothness, logits = VirtualAdversarialLoss(radius=0.5)(network, unlabeled)
        >>> supervised = nn.functional.cross_entropy(network(labeled), labels)
        >>> loss = supervised + smoothness + EntropyLoss()(logits)
        >>> loss.backward()
        >>> bool(smoothness > 0)
        True
    """

    def __init__(
        self,
        radius: float,
        direction: Direction = "gauss_newton",
        *,
        xi: float = 1e-2,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.radius, self.direction, self.xi = radius, direction, xi

    def forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Any]:
        outputs, perturbation = forward_and_perturbation(
            network, images, self.radius, direction=self.direction, xi=self.xi
        )
        mean = virtual_adversarial(network, images, perturbation, logits_of(outputs))
        return self._reduced(mean, len(images)), outputs
