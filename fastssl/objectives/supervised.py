"""The supervised term l_s. L labeled rows, C classes."""

import torch.nn.functional as F
from torch import Tensor


def supervised(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy in nats of logits [L,C] against labels int64 [L] (MUSCLE eq. 7, l_s)."""
    return F.cross_entropy(logits, labels)
