"""unit_perturbation against plain PyTorch.

N samples of D numbers; forward alone, since it has no gradient. Work: N D values read and written;
where a sample does not stay in the cache it is read three times.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from fastssl.benchmarks.harness import Provider
from fastssl.ops import unit_perturbation
from fastssl.ops.unit_perturbation import unit_perturbation_reference

CASES = [(8, 3072), (128, 3072), (128, 21168)]  # CIFAR's images, and Mini-ImageNet's
RADIUS = 8.0


def providers(N: int, D: int, device: torch.device, dtype: torch.dtype) -> Iterator[Provider]:
    """What is timed for one shape; fastssl first."""
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(N, D, generator=generator).to(device, dtype)
    yield Provider("fastssl", lambda: [unit_perturbation(d, RADIUS)])
    yield Provider("eager", lambda: [unit_perturbation_reference(d, RADIUS)])
    yield Provider("F.normalize, which underflows", lambda: [RADIUS * F.normalize(d)])
    tiny = torch.zeros(1, 2, device=device, dtype=dtype)
    yield Provider("empty call", lambda: [unit_perturbation(tiny, RADIUS)], check=False)
