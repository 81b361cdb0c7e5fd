"""Pre-training: no objective of its own, so that the terms on it are all there is."""

from torch import Tensor

from fastssl.algorithms.base import Algorithm, Batch
from fastssl.algorithms.loss import Loss


class Unsupervised(Algorithm):
    """L = 0 and the terms on it: NT-Xent, mutual information, or both (MUSCLE, figure 2d).

    All training images are seen alike and no label is read. What is trained is the features; the
    head knows no class by its name.
    """

    needs_labels = False
    needs_unlabeled = False

    def objective(self, logits: Tensor, batch: Batch) -> Loss:
        """Nothing, given logits [V,B,C]."""
        return Loss(logits.new_zeros(()), {})
