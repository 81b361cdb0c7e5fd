"""The contrastive loss NT-Xent of SimCLR.

N pairs, D features. Normalisation, similarities and cross entropy are one call each way. The
similarities of all 2N rows to each other are made tile by tile, half of them since they are
symmetric, and never stored: what is kept for the gradient is a number a row, [2N], and the
features themselves.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.ops.joint_distribution import fake_gradients, gradients
from fastssl.ops.registration import accumulator, check_floats, register_gradient


def nt_xent(features_a: Tensor, features_b: Tensor, temperature: float = 0.5) -> Tensor:
    """Contrastive loss of two views' features, to be minimised (Chen et al., 2020, eq. 1).

    The 2N rows of both views are divided by their L2 norms. Each row is to be told from all others
    as the second view of its pair: the loss is the mean over the 2N rows of the cross entropy of
    softmax over the other 2N - 1 rows' cosine similarities / temperature, the pair's own the
    target. Norms below 1e-12 count as 1e-12, as in `torch.nn.functional.normalize`, so a row of
    zeros is similar to none; its gradient is as large as 1e12, in float16 clamped at 65504. A
    single pair, N = 1, has loss 0.

    Memory: kept for the gradient are a number a row, [2N], and the inputs. While it runs the CPU
    takes two copies of the features, and a third for the gradient; a GPU one, [N / 32, 2N] forward,
    and for the gradient partial sums, at most 17 thousand rows of D or twice the features. The
    [2N, 2N] similarities, 268 MB for N = 4096 in float32, are never stored.

    Args:
        features_a: [N, D]; float32, float64, float16 or bfloat16.
        features_b: [N, D], of the same dtype and device; row n is the other view of row n.
        temperature: what similarities are divided by, above 0.

    Returns:
        Scalar in nats; float64 for float64 features, else float32.

    Raises:
        ValueError: shapes do not match, a dimension is empty, devices differ, or temperature is
            not above 0.
        TypeError: the dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    check_floats("nt_xent", features_a=features_a, features_b=features_b)
    shape_a, shape_b = features_a.shape, features_b.shape
    if len(shape_a) != 2 or shape_a != shape_b or 0 in shape_a:
        raise ValueError(
            f"nt_xent: features_a is {list(shape_a)} and features_b {list(shape_b)}; "
            "expected [N, D] both, not empty"
        )
    if not temperature > 0:
        raise ValueError(f"nt_xent: temperature is {temperature}; expected a number above 0")
    return torch.ops.fastssl.nt_xent(features_a, features_b, temperature)[0]


def nt_xent_reference(features_a: Tensor, features_b: Tensor, temperature: float = 0.5) -> Tensor:
    """`nt_xent` in plain PyTorch: the specification."""
    z = F.normalize(torch.cat([features_a, features_b]))  # [2N, D]
    similarity = z @ z.T / temperature  # [2N, 2N]
    similarity.fill_diagonal_(-torch.inf)
    positives = torch.arange(len(z), device=z.device).roll(len(features_a))
    return F.cross_entropy(similarity, positives)


@torch.library.register_fake("fastssl::nt_xent")
def _(features_a, features_b, temperature):
    N, dtype = len(features_a), accumulator(features_a.dtype)
    return features_a.new_empty((), dtype=dtype), features_a.new_empty(2 * N, dtype=dtype)


@torch.library.register_fake("fastssl::nt_xent_backward")
def _(grad, log_sums, features_a, features_b, temperature, needs_a, needs_b):
    return fake_gradients(features_a, features_b, needs_a, needs_b)


def _setup_context(ctx, inputs, output):
    features_a, features_b, ctx.temperature = inputs
    _, log_sums = output
    ctx.mark_non_differentiable(log_sums)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(log_sums, features_a, features_b)


def _backward(ctx, gradient_op, grad, _):
    if grad is None:
        return None, None, None
    needs = ctx.needs_input_grad[:2]
    found = gradient_op(grad, *ctx.saved_tensors, ctx.temperature, *needs)
    return *gradients(*found, needs), None


register_gradient("nt_xent", _setup_context, _backward)
