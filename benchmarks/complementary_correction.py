"""complementary_correction against plain PyTorch.

N rows, C classes, D features, the paper's widths; all inputs and parameters differentiated.
"""

from collections.abc import Iterator

import torch

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops.complementary_correction import (
    complementary_correction,
    complementary_correction_reference,
    parameter_shapes,
)

CASES = [(256, 10, 128), (65536, 10, 128)]
EMPTY = (1, 1, 1)
WIDTHS = (64, 64, 64, 32)


def implementations(
    N: int, C: int, D: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    like = {"device": device, "dtype": dtype}
    inputs = [normal(N, C, **like), normal(N, D, **like, seed=1)]
    for seed, shape in enumerate(parameter_shapes(C, D, *WIDTHS)):
        scaled = normal(*shape, **like, seed=2 + seed) / shape[-1] ** 0.5
        inputs.append(scaled.detach().requires_grad_())

    def eager(raw_output, features, *parameters):
        return complementary_correction_reference(raw_output, features, parameters)

    def ours(raw_output, features, *parameters):
        return complementary_correction(raw_output, features, parameters)

    yield Implementation("fastssl", ours, inputs)
    yield Implementation("eager", eager, inputs)


def work(N: int, C: int, D: int, size: int) -> dict[str, Work]:
    """The five products forward; backward those for the inputs and for the parameters."""
    weights = [shape for shape in parameter_shapes(C, D, *WIDTHS) if len(shape) == 2]
    products = 2 * N * sum(outputs * inputs for outputs, inputs in weights)
    return {
        "forward": Work(bytes=N * (2 * C + D) * size, flops=products),
        "backward": Work(bytes=N * (3 * C + 2 * D) * size, flops=2 * products),
    }
