"""The 13-layer network: the published sizes, shapes and options."""

import pytest
import torch
from torch import nn

from fastssl.errors import InputError
from fastssl.models import build_model


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("K", "H", "W"), [(3, 32, 32), (1, 28, 28), (3, 12, 17)])
def test_any_channels_and_sizes(K, H, W):
    logits, features = build_model("conv_large", K, 7)(torch.randn(2, K, H, W))
    assert logits.shape == (2, 7)
    assert features.shape == (2, 128)


def test_has_the_published_parameters():
    """Convolutions [in, out, side]; two numbers a channel in batch norm; the head with its bias."""
    shapes = [(3, 128, 3), *[(128, 128, 3)] * 2, (128, 256, 3), *[(256, 256, 3)] * 2]
    shapes += [(256, 512, 3), (512, 256, 1), (256, 128, 1)]
    channels = sum(out for _, out, _ in shapes)
    plain = sum(i * o * side**2 for i, o, side in shapes) + 2 * channels + 128 * 10 + 10
    assert plain == 3_121_802
    assert parameters(build_model("conv_large", 3, 10)) == plain
    # a bias and a norm for every channel, a norm for every class
    with_norms = plain + 2 * channels + 10
    assert parameters(build_model("conv_large", 3, 10, weight_norm=True)) == with_norms


def test_feature_maps_have_the_published_sizes():
    network, sizes = build_model("conv_large", 3, 10), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[1:])))
    network(torch.randn(2, 3, 32, 32))
    assert sizes == [
        *[(128, 32, 32)] * 3,
        *[(256, 16, 16)] * 3,
        (512, 6, 6),
        (256, 6, 6),
        (128, 6, 6),
    ]


def test_dropout_is_after_both_poolings_and_only_in_training():
    network = build_model("conv_large", 3, 10, dropout=0.25)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    images = torch.randn(2, 3, 16, 16)
    network.eval()
    assert torch.equal(network(images)[0], network(images)[0])
    network.train()
    assert not torch.equal(network(images)[0], network(images)[0])


def test_unit_features():
    network = build_model("conv_large", 3, 10, unit_features=True)
    logits, features = network(torch.randn(4, 3, 16, 16))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(logits, network.head(features))


@pytest.mark.parametrize("weight_norm", [False, True])
def test_every_parameter_gets_a_gradient(weight_norm):
    network = build_model("conv_large", 3, 10, weight_norm=weight_norm)
    network(torch.randn(4, 3, 16, 16))[0].logsumexp(1).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_mistakes_are_named():
    with pytest.raises(InputError, match="images of 8x8 pixels; expected 12x12"):
        build_model("conv_large", 1, 10)(torch.randn(2, 1, 8, 8))
    with pytest.raises(InputError, match=r"dropout: 1\.0"):
        build_model("conv_large", 1, 10, dropout=1.0)
    with pytest.raises(InputError, match=r"model\.dropout: small_cnn has no such option"):
        build_model("small_cnn", 1, 10, dropout=0.5)
