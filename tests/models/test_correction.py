"""CCN's correction network: its layers, its gradients, its behaviour under autocast."""

import pytest
import torch

from fastssl.models import CorrectionNetwork
from fastssl.ops.complementary_correction import complementary_correction_reference


def test_layers_of_the_paper():
    network = CorrectionNetwork(10, 128)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert [shape for name, shape in shapes.items() if name.endswith("weight")] == [
        (64, 10),
        (64, 128),
        (64, 64),
        (32, 128),
        (10, 32),
    ]
    assert len(shapes) == 10


def test_adds_a_correction():
    network = CorrectionNetwork(10, 20)
    raw_output, features = torch.randn(7, 10), torch.randn(7, 20)
    expected = complementary_correction_reference(raw_output, features, list(network.parameters()))
    torch.testing.assert_close(network(raw_output, features), expected)
    torch.nn.init.zeros_(network.out.weight)
    torch.nn.init.zeros_(network.out.bias)
    assert torch.equal(network(raw_output, features), raw_output)


def test_gradients_reach_both_networks_and_every_parameter():
    network = CorrectionNetwork(5, 6)
    raw_output, features = torch.randn(9, 5), torch.randn(9, 6)
    raw_output.requires_grad_()
    features.requires_grad_()
    network(raw_output, features).logsumexp(1).sum().backward()
    for tensor in (raw_output, features, *network.parameters()):
        assert tensor.grad.abs().sum() > 0


def test_half_precision_inputs_beside_float32_parameters():
    """As under autocast: what a convolutional network hands over is bfloat16."""
    network = CorrectionNetwork(5, 6)
    raw_output, features = torch.randn(9, 5).bfloat16(), torch.randn(9, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        corrected = network(raw_output, features)
    assert corrected.dtype == torch.bfloat16
    exact = network(raw_output.float(), features.float())
    torch.testing.assert_close(corrected.float(), exact, rtol=2**-8, atol=0)
    corrected.float().logsumexp(1).sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())


def test_state_survives():
    first, second = CorrectionNetwork(5, 6), CorrectionNetwork(5, 6)
    second.load_state_dict(first.state_dict())
    inputs = torch.randn(3, 5), torch.randn(3, 6)
    assert torch.equal(first(*inputs), second(*inputs))


def test_features_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"features \[9, 7\]"):
        CorrectionNetwork(5, 6)(torch.randn(9, 5), torch.randn(9, 7))
