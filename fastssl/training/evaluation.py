"""Accuracy of an algorithm's networks. N images, K channels, H x W pixels, C classes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastssl import ops
from fastssl.algorithms.base import Algorithm

ROWS = 1024  # images a forward pass
NEIGHBOURS, TEMPERATURE = 20, 0.07
TOP = 5
TOP_CLASSES = 50  # from where on five guesses are at most a tenth of the classes


def predict_all(algorithm: Algorithm, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Logits [N,C] of every network for batches of normalised images [ROWS,K,H,W] and a rest.

    In evaluation mode, and with one batch at a time on the device.
    """
    return _outputs(algorithm, algorithm.predictors(), batches)


def predict_nearest(
    algorithm: Algorithm,
    known: Iterable[Tensor],
    labels: Tensor,
    batches: Iterable[Tensor],
) -> dict[str, Tensor]:
    """Classes for a network whose head was not trained: a vote of the nearest labeled images.

    The k most similar, by the cosine of the student's features, each with weight exp(cosine / 0.07)
    (Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", section
    3.4); k is the number of labeled images of the smallest class, at most NEIGHBOURS.

    Args:
        algorithm: the student's.
        known: batches of labeled images, normalised [ROWS,K,H,W] and a rest, M in all.
        labels: int64 [M], of every class from 0 to C - 1.
        batches: those to be classified, N in all.

    Returns:
        "knn": log shares of the vote, float32 [N,C].
    """
    counts = labels.bincount()
    k = min(NEIGHBOURS, int(counts.min()))

    def unit_features(images: Tensor) -> Tensor:
        return normalize(algorithm.network(images)[1].float())

    memory = _outputs(algorithm, {"features": unit_features}, known)["features"]
    classes = labels.to(memory.device)

    def vote(images: Tensor) -> Tensor:
        nearest = (unit_features(images) @ memory.T).topk(k)
        weights = (nearest.values / TEMPERATURE).softmax(1)
        shares = weights.new_zeros(len(images), len(counts))
        shares.scatter_add_(1, classes[nearest.indices], weights)
        return shares.clamp_min(torch.finfo(shares.dtype).tiny).log()

    return _outputs(algorithm, {"knn": vote}, batches)


def _outputs(
    algorithm: Algorithm,
    functions: dict[str, Callable[[Tensor], Tensor]],
    batches: Iterable[Tensor],
) -> dict[str, Tensor]:
    """What every function gives for every image, in evaluation mode, without gradients."""
    was_training = algorithm.training
    algorithm.eval()
    outputs: dict[str, list[Tensor]] = {name: [] for name in functions}
    with torch.inference_mode():
        for images in batches:
            for name, function in functions.items():
                outputs[name].append(function(images))
    algorithm.train(was_training)
    return {name: torch.cat(rows) for name, rows in outputs.items()}


@dataclass(frozen=True)
class Evaluation:
    """How an algorithm does on N labeled images; empty of no images."""

    accuracies: dict[str, float]  # of each network
    counts: dict[str, float]  # what the algorithm compares beside them
    classes: dict[str, Tensor]  # of each network, int64 [N] on the host
    confidences: dict[str, Tensor]  # the softmax of the class, float32 [N] on the host
    measures: dict[str, dict[str, float]] = field(default_factory=dict)  # others: name, network

    @property
    def logged(self) -> dict[str, dict[str, float]]:
        """Everything for metrics.jsonl: what it is, then of what."""
        return {"accuracy": self.accuracies, "count": self.counts, **self.measures}


NOT_EVALUATED = Evaluation({}, {}, {}, {})


def evaluate_on(
    algorithm: Algorithm,
    predicted: dict[str, Tensor],
    labels: Tensor,
    groups: dict[str, Tensor] | None = None,
) -> Evaluation:
    """Compare what was predicted with the labels.

    Measured beside accuracy are "top5", where there are at least TOP_CLASSES classes; and, where
    there are groups, "entropy", the mean entropy of a prediction in nats, of all images and of each
    group ("entropy_GROUP"), and each group's accuracy ("accuracy_GROUP").

    Args:
        algorithm: whose networks predicted.
        predicted: logits [N,C] of every network, on the host.
        labels: int64 [N].
        groups: bool [N] by name, of images that are also measured apart; empty ones are left out.
    """
    classes = {name: logits.argmax(1) for name, logits in predicted.items()}
    counts = dict(algorithm.compare(classes, labels))
    measures: dict[str, dict[str, float]] = {}

    def measure(what: str, name: str, value: Tensor) -> None:
        measures.setdefault(what, {})[name] = value.item()

    groups = {group: rows for group, rows in (groups or {}).items() if rows.any()}
    for name, logits in predicted.items():
        right = (classes[name] == labels).double()
        if logits.shape[1] >= TOP_CLASSES:
            best = logits.topk(TOP, dim=1).indices
            measure("top5", name, (best == labels[:, None]).any(1).double().mean())
        if groups:
            measure("entropy", name, ops.entropy(logits))
        for group, rows in groups.items():
            measure(f"accuracy_{group}", name, right[rows].mean())
            measure(f"entropy_{group}", name, ops.entropy(logits[rows]))
    counts |= {f"images_of_{group}": int(rows.sum()) for group, rows in groups.items()}
    accuracies = {name: (found == labels).double().mean().item() for name, found in classes.items()}
    confidences = {name: x.float().softmax(1).amax(1) for name, x in predicted.items()}
    return Evaluation(accuracies, counts, classes, confidences, measures)
