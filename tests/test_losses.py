"""The losses as modules: their examples run, and they reduce as torch's own do."""

import doctest
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastssl import losses

N, C, V = 6, 4, 3


@pytest.mark.parametrize("name", losses.__all__)
def test_example_in_the_docstring(name):
    loss = getattr(losses, name)
    names = {"torch": torch, "nn": nn, **vars(losses)}
    (example,) = doctest.DocTestFinder(recurse=False).find(loss, name, globs=names)
    assert example.examples, f"{name} has no example"
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def test_all_are_listed():
    public = {
        name
        for name, value in vars(losses).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and not name.startswith("_")
    }
    assert public == set(losses.__all__)


def pairs() -> list[tuple[nn.Module, nn.Module, tuple, float]]:
    """Loss with mean and sum, its inputs, how many terms the sum has."""
    a, b, views = torch.randn(N, C), torch.randn(N, C), torch.randn(V, N, C)
    rows = [
        (losses.EntropyLoss, (), (a,), N),
        (losses.MutualLearningLoss, (), (a, b), N),
        (losses.ConsistencyLoss, ("mse",), (a, b), N * C),
        (losses.ConsistencyLoss, ("kl",), (a, b), N),
        (losses.FixMatchLoss, (0.4,), (a, b), N),
        (losses.FixMatchLoss, (0.4,), (a, views), V * N),
        (losses.ContrastiveLoss, (0.5,), (a, b), 2 * N),
    ]
    return [(each(*o), each(*o, reduction="sum"), x, count) for each, o, x, count in rows]


def test_sum_is_of_the_terms_of_the_mean():
    for mean, total, inputs, count in pairs():
        found = [loss(*inputs) for loss in (mean, total)]
        first = [each[0] if isinstance(each, tuple) else each for each in found]
        assert first[0] > 0
        torch.testing.assert_close(first[1], count * first[0])


def test_targets_come_last_as_in_torch():
    logits, target = (torch.randn(N, C, requires_grad=True) for _ in range(2))
    log_p, q = logits.log_softmax(1), target.detach().softmax(1)
    expected = {
        losses.MutualLearningLoss(): F.kl_div(log_p, q, reduction="batchmean"),
        losses.MutualLearningLoss(reduction="sum"): F.kl_div(log_p, q, reduction="sum"),
        losses.ConsistencyLoss(): F.mse_loss(logits.softmax(1), q),
        losses.ConsistencyLoss(reduction="sum"): F.mse_loss(logits.softmax(1), q, reduction="sum"),
        losses.ConsistencyLoss("kl"): F.kl_div(log_p, q, reduction="batchmean"),
    }
    for loss, value in expected.items():
        torch.testing.assert_close(loss(logits, target), value)
    losses.MutualLearningLoss()(logits, target).backward()
    assert logits.grad is not None
    assert target.grad is None


def test_mutual_information_is_to_be_minimised():
    sure = 30 * torch.eye(C)
    assert losses.MutualInformationLoss()(sure, sure).item() == pytest.approx(-math.log(C))


@pytest.mark.parametrize("direction", ["gauss_newton", "finite_difference"])
def test_virtual_adversarial_returns_the_outputs_of_its_clean_forward(direction):
    network, images = nn.Sequential(nn.Linear(5, C), nn.BatchNorm1d(C)), torch.randn(N, 5)
    mean, outputs = losses.VirtualAdversarialLoss(2.0, direction)(network, images)
    assert int(network[1].num_batches_tracked) == 1
    assert torch.equal(outputs, network(images))
    assert mean > 0
    torch.manual_seed(0)
    mean, _ = losses.VirtualAdversarialLoss(2.0, direction)(network, images)
    torch.manual_seed(0)
    total, _ = losses.VirtualAdversarialLoss(2.0, direction, reduction="sum")(network, images)
    torch.testing.assert_close(total, N * mean)


def test_wrong_options():
    with pytest.raises(ValueError, match="reduction is 'none'; expected 'mean' or 'sum'"):
        losses.EntropyLoss(reduction="none")
    with pytest.raises(ValueError, match="cost is 'l1'; expected"):
        losses.ConsistencyLoss("l1")(torch.zeros(N, C), torch.zeros(N, C))
    with pytest.raises(ValueError, match="direction is 'exact'; expected"):
        losses.VirtualAdversarialLoss(1.0, "exact")(nn.Linear(5, C), torch.randn(N, 5))
