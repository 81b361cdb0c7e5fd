"""The losses of single rows as csrc/ops composes their CUDA kernels, on the CPU checker."""

from collections.abc import Callable

import numpy as np
import torch
from cuda_on_cpu import checker
from kernels_on_cpu import Pair
from torch import Tensor

ROW_LOSS_WORKSPACE = 2048  # kRowLossWorkspace of kernels/row_loss.h


class RowLoss(torch.autograd.Function):
    """A loss that is a mean over `divisor` rows or entries of logits, with the rows' `sizes`.

    The input at position `differentiated` has a gradient; the kernel gives `results` scalars.
    """

    @staticmethod
    def forward(ctx, order, kernel, differentiated, results, divisor, sizes, *inputs):
        logits = inputs[differentiated]
        rows = ctx.rows = Pair(order, logits.flatten(0, -2), logits)
        ctx.divisor, ctx.shape, ctx.position = divisor, logits.shape, 6 + differentiated
        ctx.gradient = np.empty_like(rows.a) if ctx.needs_input_grad[ctx.position] else None
        arrays = [Pair._array(x) if isinstance(x, Tensor) else x for x in inputs]
        found = [rows.empty(1) for _ in range(results)]
        workspace = np.empty(ROW_LOSS_WORKSPACE)
        rows.launch(kernel, *arrays, ctx.gradient, workspace, *found, *sizes)
        scalars = [torch.from_numpy(x)[0] for x in found]
        ctx.mark_non_differentiable(*scalars[1:])
        return scalars[0] if results == 1 else tuple(scalars)

    @staticmethod
    def backward(ctx, grad, *_):
        rows, scaled = ctx.rows, np.empty_like(ctx.gradient)
        scale = grad.numpy().reshape(1)
        rows.launch("scale_gradient", scale, ctx.divisor, ctx.gradient, scaled, scaled.size)
        gradients = [None] * len(ctx.needs_input_grad)
        gradients[ctx.position] = rows.tensors(scaled)[0].view(ctx.shape)
        return tuple(gradients)


def entropy(order: checker.Order) -> Callable[[Tensor], Tensor]:
    """The op in one order of threads."""

    def op(logits: Tensor) -> Tensor:
        N, C = logits.shape
        return RowLoss.apply(order, "entropy", 0, 1, N, (N, C), logits)

    return op


def kl_divergence(order: checker.Order) -> Callable[[Tensor, Tensor], Tensor]:
    """The op in one order of threads."""

    def op(target_logits: Tensor, logits: Tensor) -> Tensor:
        N, C = logits.shape
        return RowLoss.apply(order, "kl_divergence", 1, 1, N, (N, C), target_logits, logits)

    return op


def pseudo_label_cross_entropy(order: checker.Order) -> Callable[..., tuple[Tensor, Tensor]]:
    """The op in one order of threads."""

    def op(weak_logits: Tensor, strong_logits: Tensor, threshold: float = 0.95):
        (N, C), V = weak_logits.shape, strong_logits.numel() // weak_logits.numel()
        inputs = weak_logits, strong_logits, threshold
        name = "pseudo_label_cross_entropy"
        return RowLoss.apply(order, name, 1, 2, V * N, (N, C, V), *inputs)

    return op


def softmax_mse(order: checker.Order) -> Callable[[Tensor, Tensor], Tensor]:
    """The op in one order of threads."""

    def op(target_logits: Tensor, logits: Tensor) -> Tensor:
        N, C = logits.shape
        return RowLoss.apply(order, "softmax_mse", 1, 1, N * C, (N, C), target_logits, logits)

    return op


def weighted_cross_entropy(order: checker.Order) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The op in one order of threads."""

    def op(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        N, C = logits.shape
        name = "weighted_cross_entropy" + ("" if weights.dtype == logits.dtype else "_wide")
        return RowLoss.apply(order, name, 0, 1, N, (N, C), logits, targets, weights)

    return op
