"""The small network: its promises on size, shapes and names."""

import pytest
import torch
from torch import nn

from fastssl.errors import InputError
from fastssl.models import build_model


@pytest.mark.parametrize(("K", "H", "W"), [(1, 8, 8), (3, 32, 32), (2, 9, 17)])
def test_any_channels_and_sizes(K, H, W):
    logits, features = build_model("small_cnn", K, 7)(torch.randn(5, K, H, W))
    assert logits.shape == (5, 7)
    assert features.shape == (5, 128)


@pytest.mark.parametrize(("S", "left"), [(8, 4), (12, 3), (16, 4), (28, 3), (32, 4), (64, 8)])
def test_large_images_are_halved_more_often(S, left):
    *layers, pooling, flatten = build_model("small_cnn", 1, 10).extractor
    assert nn.Sequential(*layers)(torch.randn(2, 1, S, S)).shape == (2, 128, left, left)
    assert (type(pooling), type(flatten)) == (nn.AdaptiveAvgPool2d, nn.Flatten)


def test_logits_are_linear_in_the_features():
    network = build_model("small_cnn", 1, 10).eval()
    logits, features = network(torch.randn(3, 1, 8, 8))
    torch.testing.assert_close(logits, features @ network.head.weight.T + network.head.bias)


def test_at_most_three_hundred_thousand_parameters():
    network = build_model("small_cnn", 3, 100)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 300_000


def test_every_parameter_gets_a_gradient():
    network = build_model("small_cnn", 1, 10)
    network(torch.randn(8, 1, 8, 8))[0].logsumexp(1).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_an_unknown_name_points_at_the_nearest():
    with pytest.raises(InputError, match="did you mean 'small_cnn'"):
        build_model("small_cn", 1, 10)
