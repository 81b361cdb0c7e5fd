"""unit_perturbation against plain PyTorch.

N samples of D numbers; forward alone, since it has no gradient.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import unit_perturbation
from fastssl.ops.unit_perturbation import unit_perturbation_reference

CASES = [(8, 3072), (128, 3072), (128, 21168)]  # CIFAR's images, and Mini-ImageNet's
EMPTY = (1, 2)
RADIUS = 8.0


def normalize(direction: Tensor) -> Tensor:
    """Torch's own, whose squares vanish for gradients below 1e-22."""
    return RADIUS * F.normalize(direction)


def implementations(
    N: int, D: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    inputs = [normal(N, D, device=device, dtype=dtype).detach()]
    yield Implementation("fastssl", lambda x: unit_perturbation(x, RADIUS), inputs)
    yield Implementation("eager", lambda x: unit_perturbation_reference(x, RADIUS), inputs)
    yield Implementation("F.normalize", normalize, inputs)


def work(N: int, D: int, size: int) -> dict[str, Work]:
    """Read and written once: beyond the caches the three passes of the kernel show."""
    return {"forward": Work(bytes=2 * N * D * size, flops=3 * N * D)}
