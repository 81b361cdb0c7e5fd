"""Weighted pseudo-labels by label propagation (Iscen et al., 2019; the stage between epochs).

N rows, D features, C classes: a graph of neighbours, diffusion of the known labels along it, and
how far each row's result can be trusted.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastssl.ops.diffuse import diffuse, diffuse_reference
from fastssl.ops.knn_graph import knn_graph, knn_graph_reference

KERNEL = None  # knn_graph, then diffuse

UNKNOWN = -1


class PseudoLabels(NamedTuple):
    """A label for every row and what it counts for in a loss.

    Attributes:
        labels: [N] int64; known ones as given. A row that no label reaches has weight 0, class 0.
        weights: [N] float32 in [0, 1]: 1 - H / ln C, the largest scaled to 1; known labels have 1.
        class_weights: [C] float32, (N / C) / n_c of the n_c rows with that label; 0 for none.
    """

    labels: Tensor
    weights: Tensor
    class_weights: Tensor


def propagate_labels(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int | None = None,
    k: int = 50,
    exponent: float = 3.0,
    alpha: float = 0.99,
    tolerance: float = 1e-6,
    max_iterations: int = 20,
    index: str = "exact",
) -> PseudoLabels:
    """Labels and weights for all rows from the few that are known (Iscen et al., 2019).

    Scores solve (I - alpha W) F = Y, Y being 1 / n_c on the n_c known rows of class c; clamped at 0
    and divided by their sum they are the distributions that labels and weights are read off.

    Args:
        features: [N, D]; float32, float64, float16 or bfloat16.
        labels: [N] int64 on the features' device, -1 where unknown.
        num_classes: C; the largest label + 1 if not given. A class of which no row is known is
            given to none.
        k: neighbours of a row in the graph, below N.
        exponent: of the similarities of neighbours.
        alpha: share that each row takes from its neighbours, in [0, 1).
        tolerance: of the diffusion's residual, relative to each class's seeds.
        max_iterations: of the diffusion.
        index: "exact", "ivf" or "hnsw", as for `knn_graph`.

    Returns:
        Labels, weights and class weights; without a gradient.

    Raises:
        ValueError: no label is known, one is out of range, shapes do not match, devices differ, or
            an argument is one that `knn_graph` or `diffuse` refuses: k >= N, features with NaN.
        TypeError: a dtype is not supported.
    """
    C = check_labels("propagate_labels", features, labels, num_classes)
    graph = knn_graph(features, k, exponent, index=index)
    scores, _ = diffuse(graph, label_seeds(labels, C), alpha, tolerance, max_iterations)
    return pseudo_labels(class_distributions(scores), labels)


def propagate_labels_reference(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int | None = None,
    k: int = 50,
    exponent: float = 3.0,
    alpha: float = 0.99,
    tolerance: float = 1e-6,
    max_iterations: int = 20,
) -> PseudoLabels:
    """`propagate_labels` with an exact index in plain PyTorch: the specification."""
    known = labels >= 0
    N, C = len(labels), num_classes or int(labels.max()) + 1
    is_class = labels[:, None] == torch.arange(C, device=labels.device)
    seeds = (is_class / is_class.sum(0)).nan_to_num(0).to(features.dtype)
    graph = knn_graph_reference(features, k, exponent)
    scores, _ = diffuse_reference(graph, seeds, alpha, tolerance, max_iterations)
    scores = scores.clamp_min(0)
    reached = scores.sum(1) > 0
    distributions = scores[reached] / scores[reached].sum(1, keepdim=True)
    weights = torch.zeros(N, device=labels.device)
    entropy = -torch.special.xlogy(distributions, distributions).sum(1)
    weights[reached] = (1 - entropy / math.log(max(C, 2))).float()
    if weights.max() > 0:
        weights = weights / weights.max()
    found = torch.where(known, labels, scores.argmax(1))
    counts = torch.bincount(found[known | reached], minlength=C)
    class_weights = torch.where(counts > 0, N / C / counts, 0)
    return PseudoLabels(found, torch.where(known, 1, weights), class_weights)


def check_labels(op: str, features: Tensor, labels: Tensor, num_classes: int | None) -> int:
    """The number of classes of labels [N] for features [N, D].

    Raises:
        ValueError: shapes do not match, devices differ, no label is known, or one is out of range.
        TypeError: labels are not int64.
    """
    if labels.dtype != torch.int64:
        raise TypeError(f"{op}: labels is {labels.dtype}; expected torch.int64")
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"{op}: features is {list(features.shape)} and labels {list(labels.shape)}; expected "
            "[N, D] and [N]"
        )
    if labels.device != features.device:
        raise ValueError(f"{op}: labels is on {labels.device} but features on {features.device}")
    if labels.numel() == 0 or (largest := int(labels.max())) < 0:
        raise ValueError(f"{op}: labels holds no known label; expected one >= 0 at least")
    if (smallest := int(labels.min())) < UNKNOWN:
        raise ValueError(f"{op}: labels holds {smallest}; expected -1 where unknown, or a class")
    if num_classes is not None and largest >= num_classes:
        raise ValueError(f"{op}: labels holds {largest}; expected below num_classes {num_classes}")
    return largest + 1 if num_classes is None else num_classes


def label_seeds(labels: Tensor, C: int) -> Tensor:
    """Y [N, C] float32: 1 / n_c where a row is one of the n_c known ones of class c, else 0."""
    known = (labels >= 0).nonzero().flatten()
    counts = torch.bincount(labels[known], minlength=C)
    seeds = torch.zeros(len(labels), C, device=labels.device)
    seeds[known, labels[known]] = 1 / counts[labels[known]].float()
    return seeds


def class_distributions(scores: Tensor) -> Tensor:
    """Scores [N, C] clamped at 0 and divided by their sum; rows of zeros, unreached, stay zeros."""
    distributions = scores.clamp_min(0)
    total = distributions.sum(1, keepdim=True)
    return distributions.div_(total.masked_fill_(total == 0, 1))


def pseudo_labels(distributions: Tensor, labels: Tensor) -> PseudoLabels:
    """What distributions [N, C], zeros where unreached, say of the rows whose label is unknown."""
    N, C = distributions.shape
    known, reached = labels >= 0, distributions.any(1)
    confidence = 1 - torch.special.entr(distributions).sum(1) / math.log(max(C, 2))
    weights = torch.where(reached, confidence.clamp_min(0), 0)
    largest = weights.max()
    weights = torch.where(known, 1, weights / largest.masked_fill(largest == 0, 1))
    found = torch.where(known, labels, distributions.argmax(1))
    counts = torch.bincount(found[known | reached], minlength=C)
    class_weights = torch.where(counts > 0, N / C / counts, 0)
    return PseudoLabels(found, weights, class_weights)
