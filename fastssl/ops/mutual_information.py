"""The mutual information of two predictions over classes (MUSCLE eq. 4 to 6).

N rows, C classes, V views. From logits to the scalar in one call; what is kept for the gradient is
the joint distribution [C, C] and the logits themselves.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from fastssl.ops.joint_distribution import (
    check_logits,
    fake_gradients,
    gradients,
    joint_distribution,
    joint_distribution_reference,
)
from fastssl.ops.registration import accumulator, register_gradient


def mutual_information(
    logits_a: Tensor, logits_b: Tensor, *, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Mutual information of the classes predicted for two views of the same rows, to be maximised.

    I(P) = Σᵢⱼ Pᵢⱼ (ln Pᵢⱼ - ln Pᵢ - ln Pⱼ) of P = `joint_distribution(logits_a, logits_b)` (MUSCLE,
    eq. 4 to 6). Inside logarithms P and its marginals are clamped at the smallest normal number, so
    a class nobody predicts contributes 0 and gradients stay finite.

    Args:
        logits_a: [N, C]; float32, float64, float16 or bfloat16.
        logits_b: [N, C] or [V, N, C], of the same dtype and device; V views share one joint.
        group: processes whose rows, N of each, make up one batch with one joint. Every one of them
            must call, and gets the same value. Gradients are those of the sum of the processes'
            values, as `torch.distributed.nn` has it: averaged over the group, as DDP does, they are
            the gradients of one process with the whole batch.

    Returns:
        Scalar I in nats, between 0 and ln C; float64 for float64 logits, else float32.

    Raises:
        ValueError: shapes do not match, a dimension is empty, or devices differ.
        TypeError: the dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    check_logits("mutual_information", logits_a, logits_b)
    if group is None:
        return torch.ops.fastssl.mutual_information(logits_a, logits_b)[0]
    local = joint_distribution(logits_a, logits_b)
    return _information(_GlobalJoint.apply(local, len(logits_a), group))


def mutual_information_reference(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """`mutual_information` in plain PyTorch: the specification."""
    return _information(joint_distribution_reference(logits_a, logits_b))


def _information(P: Tensor) -> Tensor:
    """I(P) of a symmetric joint distribution [C, C] (MUSCLE, eq. 5)."""
    tiny = torch.finfo(P.dtype).tiny
    log_marginal = P.sum(1).clamp_min(tiny).log()
    return (P * (P.clamp_min(tiny).log() - log_marginal[:, None] - log_marginal)).sum()


class _GlobalJoint(torch.autograd.Function):
    """The joint distribution [C, C] of all processes' rows, from that of each one's own."""

    @staticmethod
    def forward(ctx, joint, rows, group):
        sums = torch.cat([joint.flatten() * rows, joint.new_tensor([rows])])  # one message
        dist.all_reduce(sums, group=group)
        ctx.share, ctx.group = rows / sums[-1], group
        return (sums[:-1] / sums[-1]).view_as(joint)

    @staticmethod
    def backward(ctx, grad):
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return ctx.share * total, None, None


@torch.library.register_fake("fastssl::mutual_information")
def _(logits_a, logits_b):
    C, dtype = logits_a.shape[1], accumulator(logits_a.dtype)
    return logits_a.new_empty((), dtype=dtype), logits_a.new_empty((C, C), dtype=dtype)


@torch.library.register_fake("fastssl::mutual_information_backward")
def _(grad, joint, logits_a, logits_b, needs_a, needs_b):
    return fake_gradients(logits_a, logits_b, needs_a, needs_b)


def _setup_context(ctx, inputs, output):
    _, joint = output
    ctx.mark_non_differentiable(joint)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(joint, *inputs)


def _backward(ctx, gradient_op, grad, _):
    if grad is None:
        return None, None
    needs = ctx.needs_input_grad
    return gradients(*gradient_op(grad, *ctx.saved_tensors, *needs), needs)


register_gradient("mutual_information", _setup_context, _backward)
