"""The papers' equations in plain loops. V views, B rows of which L are labeled, C classes."""

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


def cross_entropy_sum(p: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ -w ln p[label] over the first rows of the weak view, for p [V,B,C] and labels [n]."""
    total = torch.zeros((), dtype=p.dtype)
    for i, label in enumerate(labels.tolist()):
        total = total - (1.0 if weights is None else weights[i]) * p[0, i, label].log()
    return total


def squared_distance(p: Tensor, q: Tensor) -> Tensor:
    """l_c: every view's mean squared distance from one target q [B,C] (MUSCLE eq. 3, p [V,B,C])."""
    V, B, C = p.shape
    return sum(((p[v, i] - q[i]) ** 2).sum() / C for v in range(V) for i in range(B)) / (V * B)


def confident_cross_entropy(p: Tensor, L: int, threshold: float) -> tuple[Tensor, float]:
    """FixMatch's l_p over the unlabeled rows' hard views, and the part of the rows it keeps."""
    V, B, _ = p.shape
    total, kept = torch.zeros((), dtype=p.dtype), 0
    for i in range(L, B):
        confidence, label = p[0, i].detach().max(0)
        if confidence >= threshold:
            kept += 1
            total = total - sum(p[v, i, label].log() for v in range(1, V)) / (V - 1)
    return total / (B - L), kept / (B - L)
