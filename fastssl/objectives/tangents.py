"""A network's forward with a tangent carried along: its value and its derivative in a direction.

N rows, C classes. This is torch's forward-mode AD. Where torch's own formula does more work than
the derivative takes, a layer has a rule here: torch convolves once more for a weight that has no
tangent, composes batch norm's derivative of a dozen passes, and compiles dropout's. Linear maps,
batch norm and dropout are thus carried at the cost of one more forward; every other function goes
torch's way. Both are exact, so any module made of torch's functions is, whatever its layers.
"""

import re
import traceback
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.overrides import TorchFunctionMode


def forward_with_tangent(network: nn.Module, images: Tensor, tangent: Tensor) -> tuple[Any, Tensor]:
    """What the network returns for images, and the derivative of its logits along the tangent.

    The derivative is of the network as it runs: with batch statistics that depend on the images and
    with this forward's dropout mask. It is a constant to autograd; the outputs are differentiable
    as always, once this has returned.

    Args:
        network: returns logits [N, C], or a tuple whose first entry they are.
        images: [N, ...], floating point.
        tangent: of the images' shape and dtype.

    Returns:
        The network's outputs, and [N, C] of the logits' dtype.

    Raises:
        RuntimeError: a module has no forward-mode AD; the message names it.
    """
    with forward_ad.dual_level(), _LayerRules():
        try:
            outputs = network(forward_ad.make_dual(images, tangent))
        except (NotImplementedError, RuntimeError) as error:
            if re.search("forward[- ]mode|forward AD", str(error)) is None:
                raise
            raise _no_forward_mode(_module_that_raised(error, network), str(error)) from error
        derivative = _tangent(logits_of(outputs))
        if derivative is None:
            raise _no_forward_mode(_named(network, network), "its logits carry no tangent")
        return outputs, derivative.detach()


def logits_of(outputs: Any) -> Tensor:
    """The logits among a network's outputs: the outputs themselves, or the first of a tuple."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


class _LayerRules(TorchFunctionMode):
    """Replaces torch's formula for the tangent of a function by a rule, where there is one."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in LINEAR:
            return _linear(function, *args, **kwargs)
        if function is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        if function is F.dropout:
            return _dropout(*args, **kwargs)
        output = function(*args, **kwargs)
        return _recast(output) if function in NORMALISATIONS else output


# Linear in their input.
LINEAR = {
    F.linear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
}
# Parameters wider than the input make torch's tangent wider than the output.
NORMALISATIONS = {F.group_norm, F.instance_norm, F.layer_norm, F.rms_norm}


def _linear(function, input, weight, bias=None, *rest, **options):
    if not _only_first_moves(input, weight, bias):
        return function(input, weight, bias, *rest, **options)
    primal, tangent = forward_ad.unpack_dual(input)
    output = function(primal, weight, bias, *rest, **options)
    with torch.no_grad():
        carried = function(tangent, weight, None, *rest, **options)
    return forward_ad.make_dual(output, carried)


def _dropout(input, p=0.5, training=True, inplace=False):
    if inplace or not training or _tangent(input) is None:
        return F.dropout(input, p, training, inplace)
    primal, tangent = forward_ad.unpack_dual(input)
    kept = F.dropout(torch.ones_like(primal), p)
    return forward_ad.make_dual(primal * kept, tangent * kept)


def _batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
):
    statistics, options = (running_mean, running_var), (training, momentum, eps)
    one_value = training and input.numel() == input.shape[1]  # torch refuses it
    if one_value or not _only_first_moves(input, weight, bias):
        return F.batch_norm(input, *statistics, weight, bias, *options)
    return _BatchNorm.apply(input, weight, bias, *statistics, *options)


class _BatchNorm(Function):
    """Batch norm, whose Jacobian is symmetric: its tangent is its gradient's kernel, run once.

    γ/σ (I - (11ᵀ + x̂x̂ᵀ)/m) a channel of m normalised values x̂ with batch statistics, γ/σ without.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, mean, var, training, momentum, eps):
        output, *saved, ctx.implementation = torch._batch_norm_impl_index(
            input, weight, bias, mean, var, training, momentum, eps, torch.backends.cudnn.enabled
        )
        if training:  # they go unused, and move on before the backward
            mean = var = None
        ctx.save_for_backward(input, weight, mean, var, *saved)
        ctx.save_for_forward(input, weight, mean, var, *saved)
        ctx.training, ctx.eps = training, eps
        return output

    @staticmethod
    def _gradients(ctx, grad, needed):
        input, weight, mean, var, batch_mean, batch_scale, reserve = ctx.saved_tensors
        return torch.ops.aten._batch_norm_impl_index_backward(
            ctx.implementation, input, grad, weight, mean, var, batch_mean, batch_scale,
            ctx.training, ctx.eps, needed, reserve,
        )  # fmt: skip

    @staticmethod
    def backward(ctx, grad):
        return *_BatchNorm._gradients(ctx, grad, ctx.needs_input_grad[:3]), *[None] * 5

    @staticmethod
    def jvp(ctx, tangent, *others):
        with torch.no_grad():
            return _BatchNorm._gradients(ctx, tangent, [True, False, False])[0]


def _only_first_moves(first: Tensor, *others: Tensor | None) -> bool:
    """Whether the first alone carries a tangent."""
    return _tangent(first) is not None and all(_tangent(other) is None for other in others)


def _recast(output: Tensor) -> Tensor:
    primal, tangent = forward_ad.unpack_dual(output)
    if tangent is None or tangent.dtype == primal.dtype:
        return output
    return forward_ad.make_dual(primal, tangent.to(primal.dtype))


def _tangent(value: Any) -> Tensor | None:
    return forward_ad.unpack_dual(value).tangent if isinstance(value, Tensor) else None


def _module_that_raised(error: Exception, network: nn.Module) -> str:
    """The innermost module on the way from the network to where the error was raised."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return _named([owner for owner in owners if isinstance(owner, nn.Module)][-1], network)


def _named(module: nn.Module, network: nn.Module) -> str:
    names = {each: name for name, each in network.named_modules()}
    name = names.get(module)
    return f"{name} ({type(module).__name__})" if name else type(module).__name__


def _no_forward_mode(module: str, reason: str) -> RuntimeError:
    return RuntimeError(
        f"module {module} does not support forward-mode AD, which the exact adversarial direction "
        f'needs: {reason}; direction="finite_difference" does without'
    )
