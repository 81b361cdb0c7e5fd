"""Accuracy of an algorithm's networks. N images, K channels, H x W pixels, C classes."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastssl.algorithms.base import Algorithm

ROWS = 1024  # images a forward pass


def predict_all(algorithm: Algorithm, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Logits [N,C] of every network for batches of normalised images [ROWS,K,H,W] and a rest.

    In evaluation mode, and with one batch at a time on the device.
    """
    was_training = algorithm.training
    algorithm.eval()
    predictors = algorithm.predictors()
    logits: dict[str, list[Tensor]] = {name: [] for name in predictors}
    with torch.inference_mode():
        for images in batches:
            for name, predict in predictors.items():
                logits[name].append(predict(images))
    algorithm.train(was_training)
    return {name: torch.cat(rows) for name, rows in logits.items()}


@dataclass(frozen=True)
class Evaluation:
    """How an algorithm does on N labeled images; empty of no images."""

    accuracies: dict[str, float]  # of each network
    counts: dict[str, float]  # what the algorithm compares beside them
    classes: dict[str, Tensor]  # of each network, int64 [N] on the host
    confidences: dict[str, Tensor]  # the softmax of the class, float32 [N] on the host


NOT_EVALUATED = Evaluation({}, {}, {}, {})


def evaluate_on(algorithm: Algorithm, batches: Iterable[Tensor], labels: Tensor) -> Evaluation:
    """Evaluate on images, as `predict_all` takes them, with labels int64 [N]."""
    predicted = predict_all(algorithm, batches)
    surest = {name: logits.float().softmax(1).max(1) for name, logits in predicted.items()}
    classes = {name: logits.argmax(1) for name, logits in predicted.items()}
    return Evaluation(
        {name: (found == labels).double().mean().item() for name, found in classes.items()},
        algorithm.compare(classes, labels),
        {name: found.cpu() for name, found in classes.items()},
        {name: found.values.cpu() for name, found in surest.items()},
    )
