"""The papers' equations in plain loops. V views, B rows, C classes."""

import torch
from torch import Tensor

from fastssl.models import Backbone


def probabilities(network: Backbone, views: Tensor) -> Tensor:
    """Softmax outputs [V,B,C] for views [V,B,K,H,W] that go through the network together."""
    logits, _ = network(views.flatten(0, 1))
    return torch.softmax(logits, 1).unflatten(0, views.shape[:2])


def information(p: Tensor) -> Tensor:
    """I of the first view and the others, all pairs pooled (MUSCLE eq. 5, 6), for p [V,B,C]."""
    V, B, C = p.shape
    Q = torch.zeros(C, C, dtype=p.dtype)
    for hard in range(1, V):
        for i in range(B):
            Q = Q + torch.outer(p[0, i], p[hard, i]) / ((V - 1) * B)
    P = (Q + Q.T) / 2
    total = torch.zeros((), dtype=p.dtype)
    for c in range(C):
        for d in range(C):
            total = total + P[c, d] * (P[c, d] / (P[c].sum() * P[:, d].sum())).log()
    return total
