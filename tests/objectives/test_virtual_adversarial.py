"""Virtual adversarial training: an exact direction, at the cost that is claimed, with no traces.

N images, C classes.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastssl import ops
from fastssl.models import build_model
from fastssl.objectives.virtual_adversarial import (
    forward_and_perturbation,
    frozen_statistics,
    virtual_adversarial,
)

N, C = 6, 5
SHAPE = (N, 2, 8, 8)


class Residual(nn.Module):
    """A block that torch's functions make up, not modules alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding="same")
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(images)
        y = F.silu(self.norm(x))
        y = self.second(y) * torch.sigmoid(y.mean((2, 3), keepdim=True))
        y += x
        features = F.normalize(F.relu_(y).flatten(1))
        return features[:, :C] * 7, features


def layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(0.1, inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2)),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 1),
        nn.ELU(inplace=True),  # of a convolution, not of a norm
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Linear(8, C, bias=False),
    )


def normalisations() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.GroupNorm(2, 4),
        nn.GELU(),
        nn.ConvTranspose2d(4, 4, 2),
        nn.InstanceNorm2d(4, affine=True),
        nn.Flatten(),
        nn.LayerNorm(4 * 7 * 7),
        nn.RMSNorm(4 * 7 * 7),
        nn.Linear(4 * 7 * 7, C),
    )


NETWORKS = {"layers": layers, "normalisations": normalisations, "residual": Residual}


def network_and_images(name: str) -> tuple[nn.Module, Tensor]:
    network = NETWORKS[name]().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight)
    return network, torch.randn(SHAPE, dtype=torch.float64)


def first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def hessian_product(network: nn.Module, images: Tensor, start: Tensor) -> Tensor:
    """The Hessian of the divergence in the perturbation at 0, times d: autograd twice."""
    d = F.normalize(start.flatten(1)).view_as(start)
    nu = torch.zeros_like(images).requires_grad_()
    log_q = first(network(images + nu)).log_softmax(1)
    divergence = (log_q.detach().exp() * (log_q.detach() - log_q)).sum()
    (gradient,) = torch.autograd.grad(divergence, nu, create_graph=True)
    return torch.autograd.grad(gradient, nu, d)[0]


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Of every pair of rows, each normalised in float64 first: they may be as small as 1e-16."""
    a, b = (F.normalize(x.double().flatten(1), eps=0) for x in (a, b))
    return (a * b).sum(1)


def seeded(function, *arguments, **options):
    """The same dropout masks every time."""
    torch.manual_seed(1)
    return function(*arguments, **options)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_direction_is_exact(name, training):
    network, images = network_and_images(name)
    network.train(training)
    start = torch.randn_like(images)
    exact = seeded(hessian_product, network, images, start)
    _, nu = seeded(forward_and_perturbation, network, images, 3.0, start=start)
    expected = 3 * F.normalize(exact.flatten(1)).view_as(exact)
    torch.testing.assert_close(nu, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_finite_difference_approaches_the_exact_direction(name):
    network, images = network_and_images(name)
    start = torch.randn_like(images)
    exact = seeded(hessian_product, network, images, start)
    errors = []
    for xi in (1e-2, 1e-6):
        options = {"direction": "finite_difference", "xi": xi, "start": start}
        _, nu = seeded(forward_and_perturbation, network, images, 1.0, **options)
        errors.append((1 - cosines(nu, exact)).max())
    assert errors[0] < 0.01
    assert errors[1] < 1e-9  # of another dropout mask it would be off by far
    assert errors[1] < errors[0]


@pytest.mark.parametrize("direction", ["gauss_newton", "finite_difference"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_clean_forward_is_a_plain_one(name, direction):
    """Outputs, parameter gradients, running statistics and the generator: as without VAT."""
    network, images = network_and_images(name)
    twin = NETWORKS[name]().double()
    twin.load_state_dict(network.state_dict())
    start = torch.randn_like(images)

    expected = seeded(twin, images)
    state = torch.get_rng_state()
    outputs, _ = seeded(
        forward_and_perturbation, network, images, 3.0, direction=direction, start=start
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(outputs, type(expected))
    assert torch.equal(first(outputs), first(expected))
    for mine, theirs in zip(network.buffers(), twin.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(parameter.grad is None for parameter in network.parameters())
    for logits in (first(outputs), first(expected)):
        logits.square().sum().backward()
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_divergence_is_zero_without_a_perturbation():
    """Both passes are normalised by the same group's statistics."""
    network = build_model("small_cnn", 2, C).double()
    images = 3 + torch.randn(SHAPE, dtype=torch.float64)
    logits, _ = network(images)
    zero, some = torch.zeros_like(images), torch.randn_like(images)
    assert virtual_adversarial(network, images, zero, logits).abs() < 1e-14
    assert virtual_adversarial(network, images, some, logits) > 1e-3


def test_perturbed_forward_draws_its_own_mask_and_leaves_statistics():
    network, images = network_and_images("layers")
    logits = network(images)
    buffers = [buffer.clone() for buffer in network.buffers()]
    state = torch.get_rng_state()
    loss = virtual_adversarial(network, images, torch.zeros_like(images), logits)
    assert loss > 1e-4  # another mask
    assert not torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, buffers, network.buffers()))
    network(images)
    assert not all(map(torch.equal, buffers, network.buffers()))


def test_frozen_statistics_are_thawed_after_an_error():
    network = layers()
    with pytest.raises(ZeroDivisionError), frozen_statistics(network):
        raise ZeroDivisionError
    assert all(m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_gradient_is_that_of_the_perturbed_prediction():
    """The clean prediction is a constant target."""
    network, images = network_and_images("layers")
    network.eval()
    logits, nu = forward_and_perturbation(network, images, 2.0)
    virtual_adversarial(network, images, nu, logits).backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    target = network(images).softmax(1).detach()
    log_q = network(images + nu).log_softmax(1)
    (target * (target.log() - log_q)).sum(1).mean().backward()
    for mine, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-9, atol=1e-12)


def test_the_direction_raises_the_divergence_more_than_a_random_one():
    network, images = network_and_images("layers")
    network.eval()
    logits, nu = forward_and_perturbation(network, images, 0.5)
    random = ops.unit_perturbation(torch.randn_like(images), 0.5)
    found = virtual_adversarial(network, images, nu, logits)
    assert found > 2 * virtual_adversarial(network, images, random, logits)


def test_under_no_grad():
    network, images = network_and_images("layers")
    network.eval()
    with torch.no_grad():
        logits, nu = forward_and_perturbation(network, images, 0.5)
        assert not virtual_adversarial(network, images, nu, logits).requires_grad


def test_predictions_that_nothing_moves_have_no_perturbation():
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, C))
    nn.init.zeros_(network[1].weight)
    logits, nu = forward_and_perturbation(network, torch.randn(SHAPE), 8.0)
    assert torch.equal(nu, torch.zeros(SHAPE))
    assert virtual_adversarial(network, torch.randn(SHAPE), nu, logits) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
def test_direction_under_autocast(name, dtype):
    network, images = network_and_images(name)
    images = images.float()
    start = torch.randn_like(images)
    exact = seeded(hessian_product, network, images.double(), start.double())
    network.float()
    with torch.autocast("cpu", dtype):
        _, nu = seeded(forward_and_perturbation, network, images, 1.0, start=start)
    assert nu.dtype == torch.float32
    assert cosines(nu, exact).mean() > 0.98


class Square(torch.autograd.Function):
    """Without a jvp."""

    @staticmethod
    def forward(ctx, x):
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return grad


class CustomLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(x)


class EntropyGate(nn.Module):
    """An op of fastssl, which has no forward-mode AD."""

    def forward(self, x: Tensor) -> Tensor:
        return x * ops.mutual_information(x, x).to(x.dtype)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().new_ones(len(x), C)


@pytest.mark.parametrize("layer", [CustomLayer, EntropyGate])
def test_module_without_forward_mode_is_named(layer):
    inner = nn.Sequential(nn.Flatten(), nn.Linear(128, C), layer())
    network, images = nn.Sequential(inner, nn.Softplus()), torch.randn(SHAPE)
    message = rf'module 0.2 \({layer.__name__}\) .*direction="finite_difference"'
    with pytest.raises(RuntimeError, match=message):
        forward_and_perturbation(network, images, 1.0)
    _, nu = forward_and_perturbation(network, images, 1.0, direction="finite_difference")
    torch.testing.assert_close(nu.flatten(1).norm(dim=1), torch.ones(N))


def test_network_whose_logits_do_not_depend_on_the_images_is_named():
    with pytest.raises(RuntimeError, match=r"module Detached .*carry no tangent"):
        forward_and_perturbation(Detached(), torch.randn(SHAPE), 1.0)


def test_other_errors_of_a_network_pass_through():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        forward_and_perturbation(nn.Linear(3, 4), torch.randn(2, 5), 1.0)
    one_value = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than 1 value"):
        forward_and_perturbation(one_value, torch.randn(1, 3), 1.0)


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (torch.zeros(2, 3), {"direction": "exact"}, ValueError, "'exact'; expected one of gauss_n"),
        (torch.zeros(2, 3), {"xi": 0.0}, ValueError, "xi is 0.0; expected"),
        (torch.zeros(2, 3), {"xi": math.inf}, ValueError, "xi is inf; expected"),
        (torch.zeros(2, 3), {"start": torch.zeros(2, 4)}, ValueError, r"start is \[2, 4\]"),
        (torch.zeros(2, 3, dtype=torch.uint8), {}, TypeError, "images is torch.uint8"),
    ],
)
def test_wrong_arguments(images, options, error, message):
    with pytest.raises(error, match=message):
        forward_and_perturbation(nn.Linear(3, 4), images, 1.0, **options)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor]:
    """conv_large after 20 steps, and a batch of 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model("conv_large", 3, 10)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        prototypes = torch.randn(10, 3, 16, 16)
        for _ in range(20):
            labels = torch.randint(10, (8,))
            images = prototypes[labels] + torch.randn(8, 3, 16, 16)
            optimizer.zero_grad()
            F.cross_entropy(network(images)[0], labels).backward()
            optimizer.step()
        optimizer.zero_grad()
        return network, prototypes[:8] + torch.randn(8, 3, 16, 16)


def test_direction_of_a_trained_conv_large(trained):
    network, images = trained
    start = torch.randn_like(images)
    exact = seeded(hessian_product, network.double(), images.double(), start.double())
    network.float()
    _, single = seeded(forward_and_perturbation, network, images, 8.0, start=start)
    assert cosines(single, exact).mean() >= 0.999
    with torch.autocast("cpu", torch.bfloat16):
        _, half = seeded(forward_and_perturbation, network, images, 8.0, start=start)
    assert cosines(half, exact).mean() >= 0.99


def test_costs_eight_forwards(trained):
    """Clean, power and perturbed pass with their backward; a forward is counted on its own."""
    network, images = trained
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        network(images)
    with FlopCounterMode(display=False) as all_of_it:
        (logits, _), nu = forward_and_perturbation(network, images, 8.0)
        clean = F.cross_entropy(logits, torch.arange(8))
        (clean + virtual_adversarial(network, images, nu, logits)).backward()
    assert all_of_it.get_total_flops() == pytest.approx(8 * forward.get_total_flops(), rel=0.03)
