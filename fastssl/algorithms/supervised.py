"""The baseline every result is compared with: the labeled images alone."""

from dataclasses import dataclass

from fastssl.algorithms.base import Algorithm, Batch, Loss
from fastssl.objectives.supervised import supervised


@dataclass(frozen=True)
class SupervisedConfig:
    """The baseline has no hyper-parameters of its own."""


class Supervised(Algorithm):
    """L = l_s: cross entropy on the weak view of the labeled rows."""

    config_type = SupervisedConfig
    needs_unlabeled = False

    def loss(self, batch: Batch) -> Loss:
        """The unlabeled rows are in the batch, as for every algorithm, and not looked at."""
        labeled = batch.views[0, : len(batch.labels)]
        logits, _ = self.network(labeled)
        l_s = supervised(logits, batch.labels)
        return Loss(l_s, {"supervised": l_s.detach()})
