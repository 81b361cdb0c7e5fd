"""What every op shares: its autograd wiring, and checks that name the caller's own arguments."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

_library = torch.library.Library("fastssl", "FRAGMENT")


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype an op accumulates and returns losses in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_floats(op: str, **tensors: Tensor) -> None:
    """Check that the tensors hold floats of one dtype on one device.

    Raises:
        TypeError: a tensor is not of a supported floating dtype, or dtypes differ.
        ValueError: devices differ.
    """
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise TypeError(
                f"{op}: {name} is {tensor.dtype}; expected float32, float64, float16 or bfloat16"
            )
        if tensor.dtype != first.dtype:
            raise TypeError(f"{op}: {first_name} is {first.dtype} but {name} is {tensor.dtype}")
        if tensor.device != first.device:
            raise ValueError(
                f"{op}: {first_name} is on {first.device} but {name} on {tensor.device}"
            )


def register_gradient(
    op: str,
    setup_context: Callable[[Any, tuple, Any], None],
    backward: Callable[..., tuple[Tensor | None, ...]],
) -> None:
    """Make `fastssl::{op}` differentiable, once and in reverse mode only.

    The second derivative and forward-mode AD raise RuntimeError naming the op. This is
    `torch.library.register_autograd` without its bookkeeping on every call, which costs as much as
    a small op's kernel.

    Args:
        op: the op's name; its gradient is the op `{op}_backward`.
        setup_context: called with (ctx, inputs, output) after a forward that may be differentiated.
        backward: called with (ctx, gradient_op, *grads); returns a gradient or None for each input.
    """
    forward_op = getattr(torch.ops.fastssl, op).default
    backward_op = getattr(torch.ops.fastssl, f"{op}_backward").default

    def gradient_op(*inputs):
        if torch.is_grad_enabled():  # create_graph=True: the graph must say that it ends here
            return backward_op(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return backward_op(*inputs)

    def refuse(ctx, *grads):
        raise RuntimeError(f"fastssl::{op} does not support second derivatives")

    _register_autograd(
        op, forward_op, setup_context, lambda ctx, *grads: backward(ctx, gradient_op, *grads)
    )
    _register_autograd(f"{op}_backward", backward_op, lambda ctx, inputs, output: None, refuse)


def register_no_gradient(op: str) -> None:
    """Make the result of `fastssl::{op}` a constant to autograd, whatever the inputs require.

    Forward-mode AD raises RuntimeError naming the op.
    """
    forward_op = getattr(torch.ops.fastssl, op).default

    def kernel(*inputs):
        if forward_ad._current_level >= 0:
            refuse_tangents(op, inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return forward_op(*inputs)

    _library.impl(op, kernel, "Autograd")


def _register_autograd(
    name: str, op: torch._ops.OpOverload, setup_context: Callable, backward: Callable
) -> None:
    def forward(ctx, *inputs):
        with torch._C._AutoDispatchBelowAutograd():
            output = op(*inputs)
        setup_context(ctx, inputs, output)
        return output

    node = type(
        name, (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )

    def kernel(*inputs):
        if forward_ad._current_level >= 0:
            refuse_tangents(name, inputs)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            return node.apply(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*inputs)

    _library.impl(name, kernel, "Autograd")


def refuse_tangents(op: str, inputs: tuple) -> None:
    """Raise RuntimeError if an input carries a tangent, which the kernels would drop in silence."""
    for value in inputs:
        if isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None:
            raise RuntimeError(f"fastssl::{op} does not support forward-mode AD")
