"""The convolutional layer: one op or torch's functions, it is the same layer."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastssl.models.convolution import ConvolutionLayer

OP = "fastssl.batch_norm_leaky_relu.default"


def usual(layer: ConvolutionLayer, *, halved: bool) -> nn.Module:
    """Torch's modules one after the other, with weights and statistics of their own."""
    return copy.deepcopy(nn.Sequential(*layer, *[nn.MaxPool2d(2)] * halved))


def layer_and_images(side=8, *, halve_from=None, **options):
    layer = ConvolutionLayer(3, 5, halve_from=halve_from, **options).double()
    with torch.no_grad():
        layer[1].weight.normal_()  # of both signs
        layer[1].bias.normal_()
    return layer.to(memory_format=torch.channels_last), torch.randn(4, 3, side, side).double()


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def run(network, images):
    images = images.clone().requires_grad_()
    with Calls() as calls:
        maps = network(images)
    wanted = [images, *network.parameters()]
    weights = torch.linspace(-1, 1, maps.numel()).double().view(maps.shape)
    return maps, torch.autograd.grad(maps, wanted, weights), OP in calls.names


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize(("side", "halve_from"), [(8, None), (8, 8), (7, 8), (9, 2)])
def test_one_op_in_training(side, halve_from, weight_norm):
    layer, images = layer_and_images(side, halve_from=halve_from, weight_norm=weight_norm)
    other = usual(layer, halved=halve_from is not None and side >= halve_from)
    for _ in range(2):
        maps, gradients, is_op = run(layer, images)
        expected, expected_gradients, _ = run(other, images)
        assert is_op
        torch.testing.assert_close(maps, expected)
        torch.testing.assert_close(gradients, expected_gradients)
    torch.testing.assert_close(dict(layer.named_buffers()), dict(other.named_buffers()))
    assert layer[1].num_batches_tracked == 2


def test_by_torch_elsewhere():
    """In evaluation, with planar maps, with another batch norm, and with a tangent."""
    layer, images = layer_and_images(halve_from=2)
    planar, other = (
        copy.deepcopy(layer).to(memory_format=torch.contiguous_format),
        copy.deepcopy(layer),
    )
    other[1].__class__ = type("AnotherNorm", (nn.BatchNorm2d,), {})
    for network in (planar, other, layer.eval()):
        expected, expected_gradients, _ = run(usual(network, halved=True), images)
        maps, gradients, is_op = run(network, images)
        assert not is_op
        torch.testing.assert_close(maps, expected)
        torch.testing.assert_close(gradients, expected_gradients)
    layer.train()
    with torch.autograd.forward_ad.dual_level(), Calls() as calls:
        layer(torch.autograd.forward_ad.make_dual(images, torch.ones_like(images)))
    assert OP not in calls.names


def test_statistics_that_are_not_tracked_stay():
    layer, images = layer_and_images()
    layer[1].track_running_stats = False
    before = copy.deepcopy(dict(layer.named_buffers()))
    assert run(layer, images)[2]
    torch.testing.assert_close(dict(layer.named_buffers()), before, rtol=0, atol=0)


def test_under_autocast():
    """Maps of 16 bits beside parameters of 32."""
    layer, images = layer_and_images(halve_from=2)
    layer.float()
    with torch.autocast("cpu", torch.bfloat16), Calls() as calls:
        maps = layer(images.float())
    assert OP in calls.names
    assert maps.dtype == torch.bfloat16
    torch.testing.assert_close(maps.float(), layer(images.float()), rtol=0.05, atol=0.05)
