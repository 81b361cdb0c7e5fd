"""propagate_labels against plain PyTorch, from features to weighted pseudo-labels.

N rows, C classes, 64 features of synthetic clusters, 10 known labels a class, 50 neighbours.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.diffuse import D, K, features_and_classes
from fastssl.benchmarks.harness import Implementation, Work
from fastssl.ops import propagate_labels
from fastssl.ops.propagate_labels import propagate_labels_reference

CASES = [(2000, 10), (10000, 10)]  # beyond, the N x N similarities of the plain form do not fit
EMPTY = (2, 1)
DTYPES = (torch.float32,)
LABELED = 10


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    features, classes = features_and_classes(N, C)
    labels = torch.full_like(classes, -1)
    for c in range(C):
        own = (classes == c).nonzero().flatten()[:LABELED]
        labels[own] = c
    inputs = [features.to(device, dtype), labels.to(device)]
    options = {"num_classes": C, "k": min(K, N - 1)}

    def weights(function) -> Tensor:
        return lambda x, y: function(x, y, **options).weights

    yield Implementation("fastssl", weights(propagate_labels), inputs, captured=False)
    reference = weights(propagate_labels_reference)
    yield Implementation("eager", reference, inputs, captured=False)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """The similarities of all pairs, once; features read, labels and weights written."""
    return {"forward": Work(bytes=N * (D * size + 12), flops=N * (N - 1) * D)}
