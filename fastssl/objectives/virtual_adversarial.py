"""Virtual adversarial training: the term A of CCN (eq. 1 and 4), and its adversarial direction.

N images, C classes. Miyato et al., "Virtual Adversarial Training", 2018. A = KL(h(x) ‖ h(x + ν)) at
the ν of norm at most `radius` that one power iteration finds to raise it most.

In all it costs 8 forwards' work an image, counting a gradient of the input and one of the
parameters as a forward each: 3 of them the clean forward and its backward, which the other losses
share, 2 for the direction, 3 for the perturbed forward and its backward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastssl import ops
from fastssl.objectives.tangents import forward_with_tangent, logits_of
from fastssl.ops.registration import check_floats

Direction = Literal["gauss_newton", "finite_difference"]


def forward_and_perturbation(
    network: nn.Module,
    images: Tensor,
    radius: float,
    *,
    direction: Direction = "gauss_newton",
    xi: float = 1e-2,
    start: Tensor | None = None,
) -> tuple[Any, Tensor]:
    """The clean forward, to be shared with the other losses, and the adversarial perturbation.

    One power iteration from a random d of norm 1 an image: the perturbation is along the Hessian of
    the divergence at 0 times d, that is Jᵀ (diag h - h hᵀ) J d with the Jacobian J of the logits. J
    is that of the network as it runs: over the images' own batch-norm group and with the clean
    forward's dropout mask. No gradient reaches the parameters from here, and running statistics
    move by the clean forward alone (within `frozen_statistics` not even by that).

    Args:
        network: returns logits [N, C], or a tuple whose first entry they are.
        images: [N, ...], one batch-norm group.
        radius: L2 norm of every image's perturbation, in units of the images.
        direction: "gauss_newton" is the exact product, of a tangent carried through the clean
            forward and a gradient carried back; the network's modules must support forward-mode AD,
            as torch's own do. "finite_difference" takes the gradient at x + xi d by one more
            forward; its error is rounding for a small xi, curvature for a large one.
        xi: the step of "finite_difference", in units of the images; in float32 steps of 1e-4 and
            less already turn the direction by rounding.
        start: d before it is scaled, of the images' shape and dtype; drawn by torch's generator if
            not given.

    Returns:
        What network(images) returns, differentiable, and the perturbation, of the images' shape and
        dtype. It is zero for an image whose prediction no perturbation can change to first order.

    Raises:
        ValueError: direction is unknown, radius or xi are out of range, or start does not match.
        TypeError: the images are not of a supported floating dtype.
        RuntimeError: "gauss_newton" met a module without forward-mode AD; the message names it.
    """
    check_floats("forward_and_perturbation", images=images)
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}; expected one of {', '.join(DIRECTIONS)}")
    if not 0 < xi < float("inf"):
        raise ValueError(f"xi is {xi}; expected a finite number above 0")
    if start is not None and (start.shape, start.dtype) != (images.shape, images.dtype):
        raise ValueError(
            f"start is {list(start.shape)} {start.dtype}; expected the images' "
            f"{list(images.shape)} {images.dtype}"
        )
    if start is None:
        start = torch.randn_like(images)
    start = ops.unit_perturbation(start, 1.0)
    with torch.enable_grad():
        outputs, gradient = DIRECTIONS[direction](network, images, start, xi)
    return outputs, ops.unit_perturbation(gradient, radius)


def virtual_adversarial(
    network: nn.Module, images: Tensor, perturbation: Tensor, clean_logits: Tensor
) -> Tensor:
    """Mean KL(h(x) ‖ h(x + ν)) in nats, of the clean and the perturbed images' predictions.

    The perturbed images are normalised by their own batch statistics, as the clean ones are, so
    that without dropout it is 0 at ν = 0; they draw a dropout mask of their own, and move no
    running statistics.

    Args:
        network: the network of the clean logits.
        images: [N, ...], the batch-norm group of the clean forward.
        perturbation: ν, of the images' shape.
        clean_logits: [N, C] of `images`; a constant here, it gets no gradient.

    Returns:
        Scalar, differentiable in the parameters.
    """
    with frozen_statistics(network):
        perturbed_logits = logits_of(network(images + perturbation))
    return ops.kl_divergence(clean_logits, perturbed_logits)


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Within, batch norm in training mode still normalises by its batch, but remembers nothing."""
    moving = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    for module in moving:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in moving:
            module.track_running_stats = True


def _gauss_newton(
    network: nn.Module, images: Tensor, start: Tensor, xi: float
) -> tuple[Any, Tensor]:
    if not images.requires_grad:
        images = images.detach().requires_grad_()
    outputs, tangent = forward_with_tangent(network, images, start)
    logits = logits_of(outputs)
    product = ops.softmax_hessian_product(logits, tangent)
    # One norm for the whole batch, whose images batch norm couples: sure predictions give products
    # so small that they would vanish on the way back.
    cotangent = ops.unit_perturbation(product[None], 1.0)[0]
    (gradient,) = torch.autograd.grad(logits, images, cotangent, retain_graph=True)
    return outputs, gradient


def _finite_difference(
    network: nn.Module, images: Tensor, start: Tensor, xi: float
) -> tuple[Any, Tensor]:
    devices = [images.device] if images.is_cuda else []
    states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
    outputs = network(images)
    with torch.random.fork_rng(devices), frozen_statistics(network):  # the clean dropout mask
        torch.set_rng_state(states[0])
        for device, state in zip(devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)
        nearby = (images + xi * start).detach().requires_grad_()
        divergence = ops.kl_divergence(logits_of(outputs), logits_of(network(nearby)))
    return outputs, torch.autograd.grad(divergence, nearby)[0]


DIRECTIONS = {"gauss_newton": _gauss_newton, "finite_difference": _finite_difference}
