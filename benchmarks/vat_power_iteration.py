"""Virtual adversarial training as a whole: clean, power and perturbed pass with their backward.

N images of H x H pixels, conv_large without dropout; the loss is the entropy of the clean
predictions plus the divergence of the perturbed ones (CCN eq. 1), differentiated in the parameters.
The forms by finite difference find a slightly different direction, so their results are not
compared with the others'.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.models import build_model
from fastssl.objectives.virtual_adversarial import (
    forward_and_perturbation,
    frozen_statistics,
    virtual_adversarial,
)
from fastssl.ops import entropy
from fastssl.ops.entropy import entropy_reference
from fastssl.ops.kl_divergence import kl_divergence_reference
from fastssl.ops.unit_perturbation import unit_perturbation_reference

CASES = [(8, 12), (8, 32)]
EMPTY = (2, 12)
DTYPES = (torch.float32, torch.float64)
CHANNELS, CLASSES = 3, 10
RTOL = 5e-3  # rounding moves some values across a kink of LeakyReLU or to another maximum
RADIUS = 8.0
XI = 1e-2


def implementations(
    N: int, H: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network().to(device, dtype)
    shape, like = (N, CHANNELS, H, H), {"device": device, "dtype": dtype}
    images, start = (normal(*shape, **like, seed=seed).detach() for seed in (0, 1))
    inputs = [images, *network.parameters()]
    chain = {"network": network, "start": unit_perturbation_reference(start, 1.0)}

    def ours(images: Tensor, *parameters: Tensor) -> Tensor:
        (logits, _), nu = forward_and_perturbation(network, images, RADIUS, start=start)
        return entropy(logits) + virtual_adversarial(network, images, nu, logits)

    yield Implementation("fastssl", ours, inputs)
    for name, direction, exact in (
        ("eager", _by_difference, False),
        ("10 passes", _by_difference_from_another_forward, False),
        ("autograd twice", _by_autograd_twice, True),
    ):
        yield Implementation(name, _literal(direction, **chain), inputs, check=exact)


def work(N: int, H: int, size: int) -> dict[str, Work]:
    """Four forwards' work each way: the power step is a tangent and a gradient of the input."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = _network()
        network(torch.empty(N, CHANNELS, H, H))
    numbers = N * CHANNELS * H * H + sum(p.numel() for p in network.parameters())
    half = Work(bytes=numbers * size, flops=4 * counter.get_total_flops())
    return {"forward": half, "backward": half}


def _network() -> nn.Module:
    network = build_model("conv_large", CHANNELS, CLASSES, dropout=0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # A graph cannot be repeated after another forward has moved the running means.
            module.track_running_stats = False
    return network


def _literal(
    direction: Callable[..., Tensor], network: nn.Module, start: Tensor
) -> Callable[..., Tensor]:
    """The loss as it is usually written, of a direction's gradient."""

    def loss(images: Tensor, *parameters: Tensor) -> Tensor:
        logits, _ = network(images)
        with frozen_statistics(network):
            with torch.enable_grad():
                gradient = direction(network, images, logits, start)
            nu = unit_perturbation_reference(gradient, RADIUS)
            perturbed, _ = network(images + nu)
        return entropy_reference(logits) + kl_divergence_reference(logits, perturbed)

    return loss


def _by_difference(network: nn.Module, images: Tensor, logits: Tensor, start: Tensor) -> Tensor:
    """As semilearn has it: a full backward, of which the gradients of parameters are dropped."""
    nearby = (images + XI * start).requires_grad_()
    divergence = kl_divergence_reference(logits, network(nearby)[0])
    return torch.autograd.grad(divergence, [nearby, *network.parameters()])[0]


def _by_difference_from_another_forward(
    network: nn.Module, images: Tensor, logits: Tensor, start: Tensor
) -> Tensor:
    """As a module of its own has it: the clean prediction is computed once more."""
    with torch.no_grad():
        target, _ = network(images)
    return _by_difference(network, images, target, start)


def _by_autograd_twice(network: nn.Module, images: Tensor, logits: Tensor, start: Tensor) -> Tensor:
    """The exact direction without a rule: the Hessian's product with the start."""
    nu = torch.zeros_like(images).requires_grad_()
    divergence = kl_divergence_reference(logits, network(images + nu)[0])
    (gradient,) = torch.autograd.grad(divergence, nu, create_graph=True)
    return torch.autograd.grad(gradient, nu, start)[0]
