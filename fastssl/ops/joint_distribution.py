"""The joint distribution of two predictions over classes (MUSCLE eq. 6).

N rows, C classes, V views. Softmax, product and symmetrisation are one call that reads its logits
once; no probabilities of size N x C are kept for the gradient, which recomputes them.
"""

import torch
from torch import Tensor

from fastssl.ops.registration import accumulator, check_floats, register_gradient


def joint_distribution(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """The symmetric joint distribution of the classes predicted for the same rows.

    P = (Q + Qᵀ) / 2 with Q = 1/(N V) Σᵥ softmax(logits_a)ᵀ softmax(logits_b[v]) (MUSCLE, eq. 6;
    views are pooled as in IIC). Its entries sum to 1. With V views the product is formed once.

    Args:
        logits_a: [N, C]; float32, float64, float16 or bfloat16.
        logits_b: [N, C] or [V, N, C], of the same dtype and device.

    Returns:
        P: [C, C], float64 for float64 logits, else float32.

    Raises:
        ValueError: shapes do not match, a dimension is empty, or devices differ.
        TypeError: the dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    check_logits("joint_distribution", logits_a, logits_b)
    return torch.ops.fastssl.joint_distribution(logits_a, logits_b)


def joint_distribution_reference(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """`joint_distribution` in plain PyTorch: the specification."""
    p_a = logits_a.softmax(-1)  # [N, C]
    p_b = logits_b.softmax(-1)  # [N, C] or [V, N, C]
    pooled = p_b.mean(0) if p_b.dim() == 3 else p_b
    Q = p_a.T @ pooled / len(p_a)
    return (Q + Q.T) / 2


def check_logits(op: str, logits_a: Tensor, logits_b: Tensor) -> None:
    """Check a pair of predictions: logits_a [N, C] and logits_b [N, C] or [V, N, C], none empty."""
    check_floats(op, logits_a=logits_a, logits_b=logits_b)
    shape_a, shape_b = tuple(logits_a.shape), tuple(logits_b.shape)
    if len(shape_a) != 2 or len(shape_b) not in (2, 3) or shape_b[-2:] != shape_a:
        raise ValueError(
            f"{op}: logits_a is {list(shape_a)} and logits_b {list(shape_b)}; "
            "expected [N, C] and [N, C] or [V, N, C]"
        )
    if 0 in shape_b:
        raise ValueError(
            f"{op}: logits_a {list(shape_a)} and logits_b {list(shape_b)} must not be empty"
        )


def gradients(grad_a: Tensor, grad_b: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Gradients as autograd takes them, None for those that were not asked for."""
    return grad_a if needs[0] else None, grad_b if needs[1] else None


def fake_gradients(logits_a: Tensor, logits_b: Tensor, needs_a: bool, needs_b: bool):
    """Shapes and dtypes of a backward op's gradients, empty for those that are not needed."""
    return (
        torch.empty_like(logits_a, memory_format=torch.contiguous_format)
        if needs_a
        else logits_a.new_empty(0),
        torch.empty_like(logits_b, memory_format=torch.contiguous_format)
        if needs_b
        else logits_b.new_empty(0),
    )


@torch.library.register_fake("fastssl::joint_distribution")
def _(logits_a, logits_b):
    C = logits_a.shape[1]
    return logits_a.new_empty((C, C), dtype=accumulator(logits_a.dtype))


@torch.library.register_fake("fastssl::joint_distribution_backward")
def _(grad, logits_a, logits_b, needs_a, needs_b):
    return fake_gradients(logits_a, logits_b, needs_a, needs_b)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, gradient_op, grad):
    needs = ctx.needs_input_grad
    return gradients(*gradient_op(grad, *ctx.saved_tensors, *needs), needs)


register_gradient("joint_distribution", _setup_context, _backward)
