"""Schedules, and the optimiser that a configuration describes."""

import math

import pytest
import torch
from torch import nn

from fastssl.errors import InputError
from fastssl.recipes.optim import SCHEDULES, OptimConfig
from fastssl.training.schedules import cosine, linear_end, seven_sixteenths, warmup


def test_cosine_falls_from_one_to_nothing_at_its_horizon():
    assert cosine(0, 8) == 1
    assert cosine(4, 8) == pytest.approx(0.5)
    assert cosine(8, 8) == pytest.approx(0)
    assert cosine(180, 180, horizon=210 / 180) == pytest.approx((1 + math.cos(math.pi * 6 / 7)) / 2)


def test_seven_sixteenths_of_a_cosine():
    assert seven_sixteenths(0, 10) == 1
    assert seven_sixteenths(10, 10) == pytest.approx(math.cos(math.radians(78.75)))


def test_a_line_at_the_end():
    factors = [linear_end(step, 12, 0.25) for step in range(13)]
    assert factors == pytest.approx([1.0] * 10 + [2 / 3, 1 / 3, 0.0])
    assert {linear_end(step, 12, 0.0) for step in range(12)} == {1.0}


def test_a_line_at_the_start():
    assert [warmup(step, 12, 0.25) for step in range(5)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert {warmup(step, 12, 0.0) for step in range(12)} == {1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_first_where_it_is_asked_to(schedule):
    plain, warm = (OptimConfig(0.1, schedule=schedule, warmup=share) for share in (0.0, 0.5))
    lr = [[config.settings(step, 10)["lr"] for step in range(10)] for config in (plain, warm)]
    assert lr[1] == pytest.approx([rate * min(1, (n + 1) / 5) for n, rate in enumerate(lr[0])])


def parameters():
    frozen = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    return [torch.nn.Parameter(torch.zeros(3)), frozen]


@pytest.mark.parametrize(
    ("config", "kind", "group"),
    [
        (
            OptimConfig(lr=0.2, momentum=0.8, weight_decay=0.01),
            torch.optim.SGD,
            {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True},
        ),
        (
            OptimConfig(lr=0.2, optimizer="adam", weight_decay=0.0),
            torch.optim.Adam,
            {"lr": 0.2, "betas": (0.9, 0.999), "weight_decay": 0.0},
        ),
    ],
)
def test_the_optimizer_is_the_described_one(config, kind, group):
    given = parameters()
    optimizer = config.build(given)
    assert type(optimizer) is kind
    (found,) = optimizer.param_groups
    assert found["params"] == given[:1]  # the other is not trained by gradient
    assert {key: found[key] for key in group} == group | {"lr": torch.tensor(group["lr"])}


def test_adams_beta1_falls_with_the_rate_at_the_end():
    config = OptimConfig(lr=0.1, optimizer="adam", schedule="linear_end", end=0.5)
    assert config.settings(0, 10) == {"lr": 0.1, "betas": (0.9, 0.999)}
    late = config.settings(8, 10)
    assert late["lr"] == pytest.approx(0.04)
    assert late["betas"][0] == pytest.approx(0.66)
    assert OptimConfig(lr=0.1, schedule="linear_end", end=0.5).settings(8, 10) == {
        "lr": pytest.approx(0.04)
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup": 1.0}, r"optim\.warmup: 1.0; expected 0 or more, below 1"),
        ({"optimizer": "adamw"}, "did you mean 'adam'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"horizon": 0.5}, "optim.horizon: 0.5; expected 1 or more"),
        ({"end": 1.5}, "optim.end: 1.5; expected a number from 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        OptimConfig(lr=0.1, **values)


def test_kernels_alone_are_decayed():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = OptimConfig(lr=0.1, weight_decay=0.5, decayed="kernels").build(network.parameters())
    before = [p.detach().clone() for p in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kernel, *others = network.parameters()
    assert (kernel.abs() < before[0].abs()).all()
    assert all(torch.equal(ours, old) for ours, old in zip(others, before[1:], strict=True))
    with pytest.raises(InputError, match=r"optim\.decayed: unknown name 'kernel'"):
        OptimConfig(lr=0.1, decayed="kernel")
