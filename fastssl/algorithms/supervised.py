"""Cross entropy on the labeled images: the baseline of every comparison, and plain MUSCLE's base.

B rows of which the first L are labeled, C classes.
"""

from dataclasses import dataclass

from torch import Tensor

from fastssl.algorithms.base import Algorithm, Batch
from fastssl.algorithms.loss import Loss


@dataclass(frozen=True)
class SupervisedConfig:
    """Nothing to set."""


class Supervised(Algorithm):
    """L = l_s: cross entropy on the weak view of the labeled rows (MUSCLE eq. 7)."""

    config_type = SupervisedConfig
    needs_unlabeled = False

    def loss(self, batch: Batch) -> Loss:
        """Only rows of which the objective says something go through the network."""
        propagated = self.propagation is not None and self.propagation.is_second_stage
        if self.muscle is None and self.contrastive is None and not propagated:
            L = len(batch.labels)
            batch = Batch(batch.views[:, :L], batch.labels, batch.index[:L])
        return super().loss(batch)

    def objective(self, logits: Tensor, batch: Batch) -> Loss:
        """l_s, given logits [V,B,C]."""
        l_s = self.supervised_loss(logits, batch)
        return Loss(l_s, {"supervised": l_s.detach()})
