"""ResNet-18: the sizes of its maps and parameters, and its equation written out once more."""

import pytest
import torch
import torch.nn.functional as F

from fastssl.errors import InputError
from fastssl.models import build_model


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_it_is_the_published_network():
    # He et al., table 1, with 1000 classes; with the stem of CIFAR and 10 classes.
    assert parameters(build_model("resnet18", 3, 1000)) == 11_689_512
    assert parameters(build_model("resnet18", 3, 10, stem="cifar")) == 11_173_962


@pytest.mark.parametrize(
    ("stem", "pixels", "sides"),
    [
        ("imagenet", 224, [56, 56, 28, 14, 7]),
        ("imagenet", 84, [21, 21, 11, 6, 3]),
        ("cifar", 32, [32, 32, 16, 8, 4]),
    ],
)
def test_sizes_of_the_maps(stem, pixels, sides):
    network, found = build_model("resnet18", 3, 7, stem=stem).eval(), []
    first = network.extractor.pool if stem == "imagenet" else network.extractor.relu
    stages = [getattr(network.extractor, f"stage{n}") for n in (1, 2, 3, 4)]
    for part in (first, *stages):
        part.register_forward_hook(lambda module, given, out: found.append(out.shape[-1]))
    logits, features = network(torch.randn(1, 3, pixels, pixels))
    assert found == sides
    assert (logits.shape, features.shape) == ((1, 7), (1, 512))


def test_forward_is_the_papers():
    """In training mode, where a batch norm has the statistics of the batch."""
    network, images = build_model("resnet18", 3, 5).double(), torch.randn(4, 3, 64, 64).double()

    def layer(part, x, stride=1):
        weight = part[0].weight
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (var + 1e-5).sqrt()

    extractor = network.extractor
    x = F.max_pool2d(layer(extractor.stem, images, 2).relu(), 3, 2, 1)
    for number in (1, 2, 3, 4):
        for position, block in enumerate(getattr(extractor, f"stage{number}")):
            stride = 2 if number > 1 and position == 0 else 1
            y = layer(block.second, layer(block.first, x, stride).relu())
            x = (y + (layer(block.shortcut, x, stride) if stride == 2 else x)).relu()
    features = x.mean((2, 3))
    logits, found = network(images)
    torch.testing.assert_close(found, features)
    torch.testing.assert_close(logits, features @ network.head.weight.T + network.head.bias)


def test_an_unknown_stem_is_refused():
    with pytest.raises(InputError, match="stem: unknown name 'small'; known: cifar, imagenet"):
        build_model("resnet18", 3, 10, stem="small")
