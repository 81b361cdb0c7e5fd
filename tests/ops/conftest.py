"""The backends an op is tested on."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import fastssl.ops


@dataclass(frozen=True)
class Backend:
    """Where an op runs: on a device, or its CUDA kernels on the CPU in one order of threads."""

    name: str
    device: torch.device

    def op(self, name: str) -> Callable:
        """The op of that name."""
        if not self.name.startswith("cuda_on_cpu"):
            return getattr(fastssl.ops, name)
        import graphs_on_cpu
        import kernels_on_cpu
        import norms_on_cpu
        import row_losses_on_cpu

        order = self.name.removeprefix("cuda_on_cpu_")
        homes = (kernels_on_cpu, graphs_on_cpu, norms_on_cpu, row_losses_on_cpu)
        found = next(getattr(home, name) for home in homes if hasattr(home, name))
        return found(int(order) if order.isdigit() else order)


@pytest.fixture(
    params=["cpu", "cuda_on_cpu_forward", "cuda_on_cpu_reverse", "cuda_on_cpu_1", "cuda"]
)
def backend(request) -> Backend:
    """Every backend; the order "1" is a shuffle by that seed."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
        return Backend("cuda", torch.device("cuda"))
    return Backend(request.param, torch.device("cpu"))
