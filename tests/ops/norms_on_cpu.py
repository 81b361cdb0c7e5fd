"""Batch norm as csrc/ops composes its CUDA kernels, on the CPU checker."""

from collections.abc import Callable

import numpy as np
import torch
from cuda_on_cpu import checker
from kernels_on_cpu import Pair, kernels
from torch import Tensor


class Norm:
    """Maps in channels_last order and the channels' numbers as arrays, and the op's steps."""

    def __init__(self, order, maps, weight, bias, eps, negative_slope, pool) -> None:
        N, K, H, W = maps.shape
        self.order, self.name = order, str(maps.dtype).removeprefix("torch.")
        self.sizes, self.options = (N, K, H, W, pool), (eps, negative_slope)
        self.maps = self._array(maps)
        self.accumulator = "float64" if self.name == "float64" else "float32"
        mean, variance = np.empty(K, self.accumulator), np.empty(K, self.accumulator)
        self.channels = [Pair._array(weight), Pair._array(bias), mean, variance]
        elements = np.empty(1, np.int64)
        kernels().batch_norm_workspace(elements, *self.sizes, order=order)
        self.workspace = np.empty(int(elements[0]))

    @staticmethod
    def _array(maps: Tensor) -> np.ndarray:
        return Pair._array(maps.permute(0, 2, 3, 1))

    def _tensor(self, array: np.ndarray) -> Tensor:
        found = torch.from_numpy(array)
        found = found.view(torch.bfloat16) if self.name == "bfloat16" else found
        return found.permute(0, 3, 1, 2)

    def _launch(self, kernel: str, *arguments) -> None:
        kernels().launchers[f"{kernel}_{self.name}"](*arguments, *self.sizes, order=self.order)

    def output(self) -> tuple[Tensor, Tensor, Tensor]:
        """batch_norm_leaky_relu_cuda of csrc/ops."""
        N, K, H, W, pool = self.sizes
        mean, variance = self.channels[2:]
        self._launch("batch_moments", self.maps, self.workspace, mean, variance)
        output = np.empty((N, H // pool, W // pool, K), self.maps.dtype)
        self._launch("batch_norm_leaky_relu", self.maps, *self.channels, *self.options, output)
        return self._tensor(output), torch.from_numpy(mean), torch.from_numpy(variance)

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """batch_norm_leaky_relu_backward_cuda of csrc/ops."""
        grad_maps = np.empty_like(self.maps)
        sums = [np.empty(self.sizes[1], self.accumulator) for _ in range(2)]
        self._launch(
            *("batch_norm_leaky_relu_backward", self._array(grad), self.maps, *self.channels),
            *(*self.options, self.workspace, grad_maps, *sums),
        )
        return self._tensor(grad_maps), *(torch.from_numpy(x) for x in sums)


def batch_norm_leaky_relu(order: checker.Order) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """The op in one order of threads."""

    class BatchNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.call = Norm(order, *inputs)
            output, mean, variance = ctx.call.output()
            ctx.mark_non_differentiable(mean, variance)
            return output, mean, variance

        @staticmethod
        def backward(ctx, grad, *_):
            return *ctx.call.gradients(grad), None, None, None

    def op(maps, weight, bias, *, eps=1e-5, negative_slope=0.1, pool=1):
        return BatchNorm.apply(maps, weight, bias, eps, negative_slope, pool)

    return op
