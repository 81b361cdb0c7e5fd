"""Complementary networks: two networks that teach each other, one of them through a correction.

B rows of which the first L are labeled and the other U are not; C classes, D features. Source: Wu
et al., "Mutual Learning of Complementary Networks via Residual Correction for Improving
Semi-Supervised Classification", eq. 1, 4 to 8 and Algorithm 1.
"""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastssl.algorithms.base import Algorithm, Batch, State
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.ramps import ramp_up
from fastssl.errors import InputError, unknown_name
from fastssl.models import Backbone, CorrectionNetwork
from fastssl.objectives.entropy import entropy
from fastssl.objectives.mutual_learning import mutual_learning
from fastssl.objectives.pseudo_label import pseudo_label
from fastssl.objectives.supervised import supervised
from fastssl.objectives.temporal_ensemble import TemporalEnsemble
from fastssl.objectives.virtual_adversarial import (
    forward_and_perturbation,
    frozen_statistics,
    virtual_adversarial,
)


@dataclass(frozen=True)
class CCNConfig:
    """The weights of the terms, by the paper's letters, and what the paper leaves open.

    Attributes:
        entropy: weight of H on unlabeled images (eq. 1, 4: 1).
        adversarial: eta, of virtual adversarial training.
        radius: eps, the L2 norm of its perturbations, in units of the normalised images.
        mutual: lambda, of the two networks' divergence from each other.
        correction: whether there is a correction network, and pseudo-labels from it.
        ensemble: mu once its ramp has ended, of the distance to the temporal ensemble (eq. 5).
        ramp_epochs: how long mu rises.
        momentum: alpha of the temporal ensemble (eq. 6).
        statistics: whose clean images move the batch norms' running statistics: "labeled", or
            "unlabeled" where a few labeled images would be too few.
    """

    entropy: float = 1.0
    adversarial: float = 1.0
    radius: float = 8.0
    mutual: float = 1.0
    correction: bool = True
    ensemble: float = 30.0
    ramp_epochs: float = 80.0
    momentum: float = 0.6
    statistics: str = "labeled"

    def __post_init__(self) -> None:
        for key in ("entropy", "adversarial", "radius", "mutual", "ensemble", "ramp_epochs"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"algorithm.{key}: {value}; expected a finite number, 0 or more")
        if not 0 <= self.momentum < 1:
            raise InputError(f"algorithm.momentum: {self.momentum}; expected 0 or more, below 1")
        if self.statistics not in ("labeled", "unlabeled"):
            raise unknown_name("algorithm.statistics", self.statistics, ("labeled", "unlabeled"))


# Table 3's models as changes of the full one.
VARIANTS: dict[str, dict[str, float | bool]] = {
    "baseline": {"entropy": 0.0, "adversarial": 0.0, "correction": False},
    "no-ml": {"mutual": 0.0},
    "no-ccn": {"correction": False},
    "no-vat": {"adversarial": 0.0},
}


def variant(config: CCNConfig, name: str) -> CCNConfig:
    """The configuration of one of table 3's models.

    Raises:
        InputError: there is none of that name.
    """
    if name not in VARIANTS:
        raise unknown_name("variant", name, VARIANTS)
    return replace(config, **VARIANTS[name])


class CCN(Algorithm):
    """L1 + L2 + LC, one backward for the gradients of Algorithm 1, all at the same parameters.

    Every image goes clean through each network once, and all terms read that pass. Labeled and
    unlabeled rows are two batch-norm groups. Constants to the gradient are the other network's
    prediction in the divergence, the pseudo-label, the clean prediction that the adversarial one is
    compared with, and the temporal ensemble; LC reaches both networks and the correction.

    Args:
        network: theta_1, which is evaluated; theta_2 is another of its kind.
        config: of the terms.
        muscle: None; this algorithm does not take the term.
        num_images: N, training images.
        propagation: None; this algorithm has one stage.
    """

    config_type = CCNConfig
    moves_images = True

    def __init__(
        self,
        network: Backbone,
        config: CCNConfig,
        muscle: None = None,
        num_images: int = 0,
        propagation: None = None,
    ) -> None:
        super().__init__(network, config, muscle)
        self.needs_forward_mode = config.adversarial > 0  # the exact direction
        self.second = _another(network)
        if config.correction:
            num_classes, num_features = network.head.out_features, network.head.in_features
            self.correction = CorrectionNetwork(num_classes, num_features)
            self.ensemble = TemporalEnsemble(num_images, num_classes, config.momentum)
        self.register_buffer("ensemble_weight", torch.zeros(()))

    def loss(self, batch: Batch) -> Loss:
        """The sum of the three objectives on one batch of weak views; the ensemble takes it in."""
        L = len(batch.labels)
        labeled, unlabeled = batch.views[0, :L], batch.views[0, L:]
        first = self._one_network(self.network, labeled, unlabeled, batch.labels)
        second = self._one_network(self.second, labeled, unlabeled, batch.labels)
        terms = {f"{name}_1": value for name, value in first.terms.items()}
        terms |= {f"{name}_2": value for name, value in second.terms.items()}
        if self.config.mutual:
            terms["mutual_1"] = mutual_learning(second.unlabeled_logits, first.unlabeled_logits)
            terms["mutual_2"] = mutual_learning(first.unlabeled_logits, second.unlabeled_logits)
        if self.config.correction:
            corrected = self.correction(first.labeled_logits, second.labeled_features)
            terms["supervised_c"] = supervised(corrected, batch.labels)
            corrected = self.correction(first.unlabeled_logits, second.unlabeled_features)
            terms["pseudo_label_2"], _ = pseudo_label(
                corrected, second.unlabeled_logits.unsqueeze(0), threshold=0.0
            )
            probabilities = corrected.softmax(1)
            terms["ensemble_c"] = self.ensemble.distance(probabilities, batch.index[L:])
            self.ensemble.update(
                self.ranks.gather(probabilities), self.ranks.gather(batch.index[L:])
            )
        weights = {
            "entropy": self.config.entropy,
            "adversarial": self.config.adversarial,
            "mutual": self.config.mutual,
            "ensemble": self.ensemble_weight,
        }
        total = sum(weights.get(name[:-2], 1.0) * value for name, value in terms.items())
        return Loss(total, {name: value.detach() for name, value in terms.items()})

    def _one_network(
        self, network: Backbone, labeled: Tensor, unlabeled: Tensor, labels: Tensor
    ) -> "_Passes":
        """The clean passes of a network and the terms that need no other."""
        config = self.config
        by_labeled = config.statistics == "labeled"
        with nullcontext() if by_labeled else frozen_statistics(network):
            labeled_logits, labeled_features = network(labeled)
        terms = {"supervised": supervised(labeled_logits, labels)}
        with frozen_statistics(network) if by_labeled else nullcontext():
            if config.adversarial:
                start = self.ranks.randn_like(unlabeled)
                outputs, perturbation = forward_and_perturbation(
                    network, unlabeled, config.radius, start=start
                )
            else:
                outputs = network(unlabeled)
        logits, features = outputs
        if config.entropy:
            terms["entropy"] = entropy(logits)
        if config.adversarial:
            terms["adversarial"] = virtual_adversarial(network, unlabeled, perturbation, logits)
        return _Passes(labeled_logits, labeled_features, logits, features, terms)

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The two networks, then the first one corrected."""
        networks = {
            "net1": lambda images: self.network(images)[0],
            "net2": lambda images: self.second(images)[0],
        }
        if self.config.correction:
            networks["ccn"] = lambda images: self.correction(
                self.network(images)[0], self.second(images)[1]
            )
        return networks

    def compare(self, classes: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
        """Images that only the corrected network gets right, and that it alone gets wrong."""
        if not self.config.correction:
            return {}
        before, after = classes["net1"] == labels, classes["ccn"] == labels
        return {
            "true_corrections": (after & ~before).sum().item(),
            "false_corrections": (before & ~after).sum().item(),
        }

    def before_epoch(self, state: State) -> None:
        """Mu rises with the epochs, from 0 in the first, whose images have no target yet."""
        ramp = ramp_up(state.epoch, self.config.ramp_epochs) if state.epoch else 0.0
        self.ensemble_weight.fill_(self.config.ensemble * ramp)


@dataclass(frozen=True)
class _Passes:
    """What one network makes of a batch: logits [L,C], [U,C], features [L,D], [U,D], its terms."""

    labeled_logits: Tensor
    labeled_features: Tensor
    unlabeled_logits: Tensor
    unlabeled_features: Tensor
    terms: dict[str, Tensor]


def _another(network: Backbone) -> Backbone:
    """A network of the same kind with an initialisation of its own."""
    other = copy.deepcopy(network)
    for module in other.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return other
