"""Training with the ops and with their references: 50 steps of the same losses.

N images, C classes, D features.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from op_checks import nats_floor
from torch import Tensor, nn

from fastssl import ops
from fastssl.models import CorrectionNetwork
from fastssl.objectives.virtual_adversarial import forward_and_perturbation, virtual_adversarial
from fastssl.ops.complementary_correction import complementary_correction_reference
from fastssl.ops.kl_divergence import kl_divergence_reference
from fastssl.ops.mutual_information import mutual_information_reference
from fastssl.ops.unit_perturbation import unit_perturbation_reference

N, C, D = 24, 4, 16
SHAPE = (N, 1, 8, 8)
STEPS, RADIUS = 50, 1.0
Loss = Callable[[nn.ModuleDict, Tensor, Tensor, Tensor], Tensor]


def networks() -> nn.ModuleDict:
    extractor = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.LeakyReLU(0.1, inplace=True),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, D), nn.Tanh(),
    )  # fmt: skip
    parts = {"extractor": extractor, "head": nn.Linear(D, C), "correction": CorrectionNetwork(C, D)}
    return nn.ModuleDict(parts)


def classify(parts: nn.ModuleDict) -> nn.Sequential:
    return nn.Sequential(parts["extractor"], parts["head"])


def information(parts, images, noise, labels):
    network = classify(parts)
    logits = network(images)
    return F.cross_entropy(logits, labels) - ops.mutual_information(logits, network(images + noise))


def information_reference(parts, images, noise, labels):
    network = classify(parts)
    logits = network(images)
    term = mutual_information_reference(logits, network(images + noise))
    return F.cross_entropy(logits, labels) - term


def adversarial(parts, images, noise, labels):
    network = classify(parts)
    logits, nu = forward_and_perturbation(network, images, RADIUS, start=noise)
    return F.cross_entropy(logits, labels) + virtual_adversarial(network, images, nu, logits)


def adversarial_reference(parts, images, noise, labels):
    """The direction by autograd twice."""
    network = classify(parts)
    logits = network(images)
    zero = torch.zeros_like(images).requires_grad_()
    divergence = kl_divergence_reference(logits, network(images + zero))
    (gradient,) = torch.autograd.grad(divergence, zero, create_graph=True)
    start = unit_perturbation_reference(noise, 1.0)
    (product,) = torch.autograd.grad(gradient, zero, start)
    perturbed = network(images + unit_perturbation_reference(product, RADIUS))
    return F.cross_entropy(logits, labels) + kl_divergence_reference(logits, perturbed)


def correction(parts, images, noise, labels):
    features = parts["extractor"](images)
    return F.cross_entropy(parts["correction"](parts["head"](features), features), labels)


def correction_reference(parts, images, noise, labels):
    features, module = parts["extractor"](images), parts["correction"]
    layers = module.raw, module.feature1, module.feature2, module.join, module.out
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    corrected = complementary_correction_reference(parts["head"](features), features, parameters)
    return F.cross_entropy(corrected, labels)


CASES = {
    "mutual_information": (information, information_reference),
    "virtual_adversarial": (adversarial, adversarial_reference),
    "complementary_correction": (correction, correction_reference),
}


def train(loss: Loss, dtype: torch.dtype, steps: int) -> Tensor:
    """The loss of every step, in float64; the same start and batches in every dtype."""
    torch.manual_seed(0)
    parts = networks().to(dtype)
    prototypes = torch.randn(C, *SHAPE[1:])
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.05, momentum=0.9)
    found = []
    for _ in range(steps):
        labels = torch.randint(C, (N,))
        images, noise = prototypes[labels] + torch.randn(SHAPE), torch.randn(SHAPE)
        optimizer.zero_grad()
        value = loss(parts, images.to(dtype), noise.to(dtype), labels)
        value.backward()
        optimizer.step()
        found.append(value.detach().double())
    return torch.stack(found)


@pytest.mark.parametrize("name", CASES)
def test_losses_agree_in_float64_at_every_step(name):
    ours, reference = (train(loss, torch.float64, STEPS) for loss in CASES[name])
    assert (ours - reference).abs().max() <= 1e-9
    assert ours[-5:].mean() < ours[:5].mean()  # it trains


@pytest.mark.parametrize("name", CASES)
def test_first_steps_in_float32_are_as_precise_as_the_references(name):
    """err(ops vs fp64) <= 2 err(references vs fp64) + floor, as op_checks.check_precision."""
    _, reference = CASES[name]
    exact = train(reference, torch.float64, 5)
    error, peer = ((train(each, torch.float32, 5) - exact).abs().max() for each in CASES[name])
    assert error <= 2 * peer + nats_floor(torch.float32, C)
