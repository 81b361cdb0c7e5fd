"""Batch norm, LeakyReLU and max pooling in one: what follows a convolution in training.

N images, K channels, H x W pixels. These three are bound by memory: torch passes over a layer's
maps a dozen times and keeps four copies, where two passes forward and two backward do, and one
copy. Ioffe and Szegedy, "Batch Normalization", 2015, equations of section 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.ops.registration import accumulator, check_floats, register_gradient

POOLS = (1, 2)


def batch_norm_leaky_relu(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    negative_slope: float = 0.1,
    pool: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps normalised by their own statistics, LeakyReLU of them, and the largest of each window.

    What `max_pool2d(leaky_relu(batch_norm(maps, training=True)), pool)` gives, and its gradients;
    of equal numbers in a window the first one gets the gradient. A gradient that is differentiated
    in its turn (create_graph=True) is torch's own, computed from the maps once more.

    Args:
        maps: [N, K, H, W]; float32, float64, float16 or bfloat16. In channels_last order they are
            read as they are, otherwise copied.
        weight: [K], float64 for float64 maps, else float32.
        bias: [K], of the weight's dtype.
        eps: added to the variance.
        negative_slope: of the LeakyReLU, 0 or more.
        pool: pixels a side of a window, 1 or 2; a row or column left over has no output.

    Returns:
        Output [N, K, H // pool, W // pool] of the maps' dtype, in channels_last order; the batch's
        mean and biased variance, [K] each of the weight's dtype, constants to autograd.

    Raises:
        ValueError: shapes do not match, there is but one value a channel or none, the maps are
            smaller than a window, devices differ, or a number is out of its range.
        TypeError: a dtype is not supported or not the one expected.
        RuntimeError: under forward-mode AD.
    """
    _check(maps, weight, bias, eps, negative_slope, pool)
    maps = maps.contiguous(memory_format=torch.channels_last)
    return torch.ops.fastssl.batch_norm_leaky_relu(
        maps, weight.contiguous(), bias.contiguous(), eps, negative_slope, pool
    )


def batch_norm_leaky_relu_reference(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    negative_slope: float = 0.1,
    pool: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm_leaky_relu` in plain PyTorch: the specification."""
    wide = maps.detach().to(weight.dtype)
    variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    normal = F.batch_norm(maps, None, None, weight, bias, training=True, eps=eps)
    output = F.leaky_relu(normal, negative_slope)
    return F.max_pool2d(output, pool) if pool > 1 else output, mean, variance


def _check(
    maps: Tensor, weight: Tensor, bias: Tensor, eps: float, negative_slope: float, pool: int
) -> None:
    op = "batch_norm_leaky_relu"
    check_floats(op, maps=maps)
    check_floats(op, weight=weight, bias=bias)
    if pool not in POOLS:
        raise ValueError(f"{op}: pool is {pool}; expected 1 or 2")
    if maps.dim() != 4 or 0 in maps.shape or min(maps.shape[2:]) < pool:
        raise ValueError(
            f"{op}: maps is {list(maps.shape)}; expected [N, K, H, W], not empty, of "
            f"{pool}x{pool} pixels or more"
        )
    N, K, H, W = maps.shape
    if N * H * W == 1:
        raise ValueError(
            f"{op}: maps is {list(maps.shape)}; expected more than one value a channel"
        )
    for name, channels in (("weight", weight), ("bias", bias)):
        if channels.shape != (K,):
            raise ValueError(f"{op}: {name} is {list(channels.shape)}; expected [{K}]")
    if weight.dtype != accumulator(maps.dtype):
        raise TypeError(
            f"{op}: weight is {weight.dtype} beside {maps.dtype} maps; "
            f"expected {accumulator(maps.dtype)}"
        )
    if weight.device != maps.device:
        raise ValueError(f"{op}: maps is on {maps.device} but weight on {weight.device}")
    if not 0 <= negative_slope < float("inf"):
        raise ValueError(f"{op}: negative_slope is {negative_slope}; expected 0 or more")
    if not 0 <= eps < float("inf"):
        raise ValueError(f"{op}: eps is {eps}; expected 0 or more")


@torch.library.register_fake("fastssl::batch_norm_leaky_relu")
def _(maps, weight, bias, eps, negative_slope, pool):
    N, K, H, W = maps.shape
    output = torch.empty_like(
        maps.new_empty(N, K, H // pool, W // pool), memory_format=torch.channels_last
    )
    return output, torch.empty_like(weight), torch.empty_like(weight)


@torch.library.register_fake("fastssl::batch_norm_leaky_relu_backward")
def _(grad, maps, weight, bias, mean, variance, eps, negative_slope, pool):
    grad_maps = torch.empty_like(maps, memory_format=torch.channels_last)
    return grad_maps, torch.empty_like(weight), torch.empty_like(weight)


def _setup_context(ctx, inputs, output):
    maps, weight, bias, *ctx.options = inputs
    _, mean, variance = output
    ctx.mark_non_differentiable(mean, variance)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(maps, weight, bias, mean, variance)


def _backward(ctx, gradient_op, grad, *_):
    if grad is None:
        return (None,) * 6
    if torch.is_grad_enabled():
        return *_differentiable_gradients(ctx, grad), None, None, None
    grad = grad.contiguous(memory_format=torch.channels_last)
    return *gradient_op(grad, *ctx.saved_tensors, *ctx.options), None, None, None


def _differentiable_gradients(ctx, grad):
    """By torch's functions, for a network whose gradient is differentiated in its turn."""
    inputs, (eps, negative_slope, pool) = ctx.saved_tensors[:3], ctx.options
    output, *_ = batch_norm_leaky_relu_reference(
        *inputs, eps=eps, negative_slope=negative_slope, pool=pool
    )
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(output, wanted, grad, create_graph=True))
    return [next(found) if x.requires_grad else None for x in inputs]


register_gradient("batch_norm_leaky_relu", _setup_context, _backward)
