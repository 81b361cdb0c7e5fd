"""The network of CCN's toy example."""

import pytest
import torch
from torch import nn

from fastssl.models import build_model


def test_three_layers_of_300():
    network = build_model("mlp", 2, 4)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [
        *((300, 2), (300, 300), (300, 300)),
        (4, 300),
    ]


@pytest.mark.parametrize("shape", [(5, 2), (5, 2, 1, 1)])
def test_points_and_images_of_one_pixel(shape):
    network, points = build_model("mlp", 2, 4), torch.randn(shape)
    logits, features = network(points)
    assert logits.shape == (5, 4)
    assert features.shape == (5, 300)
    assert (features >= 0).all()
    assert torch.equal(logits, network.head(features))
