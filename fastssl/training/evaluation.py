"""Accuracy of an algorithm's networks. N images, K channels, H x W pixels, C classes."""

import torch
from torch import Tensor

from fastssl.algorithms.base import Algorithm

ROWS = 1024  # images a forward pass


def predict_all(algorithm: Algorithm, images: Tensor) -> dict[str, Tensor]:
    """Logits [N,C] of every network for normalised images [N,K,H,W], in evaluation mode."""
    was_training = algorithm.training
    algorithm.eval()
    with torch.inference_mode():
        logits = {
            name: torch.cat([predict(rows) for rows in images.split(ROWS)])
            for name, predict in algorithm.predictors().items()
        }
    algorithm.train(was_training)
    return logits


def accuracies(algorithm: Algorithm, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Part of normalised images [N,K,H,W] that each network gives its label, int64 [N]."""
    return {
        name: (logits.argmax(1) == labels).double().mean().item()
        for name, logits in predict_all(algorithm, images).items()
    }
