"""What the losses that are means over rows of logits share: checks, fakes and autograd wiring."""

import torch
from torch import Tensor

from fastssl.ops.registration import accumulator, check_floats, register_gradient


def check_logits(op: str, logits: Tensor) -> None:
    """Check logits [N, C], not empty."""
    check_floats(op, logits=logits)
    if logits.dim() != 2 or 0 in logits.shape:
        raise ValueError(f"{op}: logits is {list(logits.shape)}; expected [N, C], not empty")


def check_targeted_logits(op: str, target_logits: Tensor, logits: Tensor) -> None:
    """Check target_logits and logits [N, C], not empty."""
    check_floats(op, target_logits=target_logits, logits=logits)
    if logits.dim() != 2 or target_logits.shape != logits.shape or 0 in logits.shape:
        raise ValueError(
            f"{op}: target_logits is {list(target_logits.shape)} and logits {list(logits.shape)}; "
            "expected [N, C] both, not empty"
        )


def needs_gradient(logits: Tensor) -> bool:
    """Whether a forward call is to make the gradient that a backward call may ask for."""
    return logits.requires_grad and torch.is_grad_enabled()


def register_loss(op: str, differentiated: int) -> None:
    """Fakes and gradient of `fastssl::{op}(*tensors, bool needs_gradient) -> (loss, gradient)`.

    The loss is a scalar with a gradient for one input, at the position `differentiated`; the
    forward call makes it up to a factor, and `{op}_backward(grad, gradient, logits)` scales it. The
    logits tell autograd what that depends on, so that a second derivative is refused.
    """

    @torch.library.register_fake(f"fastssl::{op}")
    def _(*inputs):
        logits, needed = inputs[differentiated], inputs[-1]
        return fake_scalar(logits), fake_gradient(logits, needed)

    register_scaled_gradient(op, differentiated)


def register_scaled_gradient(op: str, differentiated: int) -> None:
    """As `register_loss`, for an op of more outputs, the gradient being the last."""

    @torch.library.register_fake(f"fastssl::{op}_backward")
    def _(grad, gradient, logits):
        return torch.empty_like(gradient)

    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[-1], inputs[differentiated])

    def backward(ctx, gradient_op, grad, *_):
        gradients = [None] * len(ctx.needs_input_grad)
        if grad is not None and ctx.needs_input_grad[differentiated]:
            gradients[differentiated] = gradient_op(grad, *ctx.saved_tensors)
        return tuple(gradients)

    register_gradient(op, setup_context, backward)


def fake_scalar(logits: Tensor) -> Tensor:
    """A scalar of the accumulation dtype."""
    return logits.new_empty((), dtype=accumulator(logits.dtype))


def fake_gradient(logits: Tensor, needed: bool) -> Tensor:
    """A contiguous tensor like the logits; empty if it is not needed."""
    if not needed:
        return logits.new_empty(0)
    return torch.empty_like(logits, memory_format=torch.contiguous_format)
