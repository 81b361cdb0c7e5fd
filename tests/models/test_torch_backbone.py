"""Modules of other people as backbones: what is found in them, and what is refused."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fastssl.algorithms.base import Batch
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.supervised import Supervised, SupervisedConfig
from fastssl.errors import InputError
from fastssl.models import Backbone, TorchBackbone, make_network

SHAPE = (3, 16, 16)


class Plain(nn.Module):
    """As people write them: the head is not the last attribute, and it is named as they like."""

    def __init__(self, classes=5):
        super().__init__()
        self.hidden = nn.Linear(6, 8)
        self.classify = nn.Linear(8, classes)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1),
        )

    def forward(self, x):
        return self.classify(self.hidden(self.trunk(x).flatten(1)).relu())


class Viewing(nn.Module):
    """A view() that channels_last maps do not allow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        return self.head(self.conv(x).view(x.shape[0], -1))


def test_logits_are_the_modules_and_features_lead_to_them():
    module, images = Plain().eval(), torch.randn(7, *SHAPE)
    network = TorchBackbone(module, 5, SHAPE).eval()
    logits, features = network(images)
    torch.testing.assert_close(logits, module(images))
    assert features.shape == (7, 8)
    torch.testing.assert_close(logits, module.classify(features))
    assert network.head_name == "classify"


def test_the_module_stays_as_it_is():
    module = Plain()
    before, training = copy.deepcopy(module.state_dict()), module.training
    network = TorchBackbone(module, 3, SHAPE)
    network(torch.randn(4, *SHAPE))
    assert isinstance(module.classify, nn.Linear)
    assert module.training == training is True
    assert network.extractor.trunk[1].training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name  # running statistics, too


def test_other_classes_get_a_fresh_head_and_the_module_can_be_had_back():
    module = Plain()
    kept, fresh = TorchBackbone(module, 5, SHAPE), TorchBackbone(module, 3, SHAPE)
    assert torch.equal(kept.head.weight, module.classify.weight)
    assert fresh.head.weight.shape == (3, 8)
    with torch.no_grad():
        fresh.head.bias.fill_(7.0)
    back, images = fresh.eval().to_module(), torch.randn(4, *SHAPE)
    assert type(back) is Plain
    torch.testing.assert_close(back(images), fresh(images)[0])
    assert isinstance(fresh.extractor.classify, nn.Identity)


def test_muscle_s_views_are_one_batch_norm_batch():
    network = TorchBackbone(Plain(), 5, SHAPE)
    algorithm = Supervised(copy.deepcopy(network), SupervisedConfig(), Muscle())
    views = torch.randn(4, 6, *SHAPE)
    loss = algorithm.loss(Batch(views, torch.tensor([0, 4]), torch.arange(6)))
    loss.total.backward()
    assert all(p.grad is not None for p in algorithm.network.parameters())
    network(views.flatten(0, 1))
    theirs = dict(network.named_buffers())
    for name, ours in algorithm.network.named_buffers():
        assert torch.equal(ours, theirs[name]), name


def test_channels_last_where_the_module_allows_it():
    images = torch.randn(4, *SHAPE)
    for module, expected in ((Plain(), torch.channels_last), (Viewing(), torch.contiguous_format)):
        network = TorchBackbone(module, 5, SHAPE).eval()
        assert network.memory_format is expected
        network.to(memory_format=network.memory_format)
        given = images.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(given)[0], module.eval()(images))


def wrapped(*layers):
    return nn.Sequential(nn.Flatten(), *layers)


class Auxiliary(Viewing):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "no nn.Linear"),
        (nn.Linear(16, 5), "Linear is a layer"),
        (wrapped(nn.Linear(768, 5), nn.LogSoftmax(1)), "after its last nn.Linear, 1"),
        (wrapped(nn.Linear(768, 5), nn.Linear(5, 5), nn.BatchNorm1d(5)), "after its last"),
        (nn.Sequential(nn.Linear(16, 5), nn.Flatten(2)), r"are \[2, 3, 256\]; expected \[N,16\]"),
        (wrapped(nn.Linear(99, 5)), r"Sequential fails on images \[3, 16, 16\]: RuntimeError"),
    ],
)
def test_what_cannot_be_one_is_refused(module, message):
    if "BatchNorm1d" in str(module):
        nn.init.uniform_(module[-1].weight)
    with pytest.raises(InputError, match=message) as raised:
        TorchBackbone(module, 5, SHAPE)
    assert "\n" not in str(raised.value)


def test_auxiliary_outputs_are_refused_when_they_come():
    network = TorchBackbone(Auxiliary(), 5, SHAPE)
    network.eval()(torch.randn(2, *SHAPE))
    with pytest.raises(InputError, match="gives tuple in training"):
        network.train()(torch.randn(2, *SHAPE))


def test_a_users_own_backbone_is_used_as_it_is():
    own = Backbone(wrapped(nn.Linear(768, 9)), 9, 5)
    network = make_network("module:Backbone", SHAPE, 5, module=own)
    assert network is not own
    assert torch.equal(network.head.weight, own.head.weight)
    with pytest.raises(InputError, match="Backbone has 5 classes, the data 4"):
        make_network("module:Backbone", SHAPE, 4, module=own)


@pytest.mark.parametrize(
    ("name", "module", "options", "message"),
    [
        ("module:Plain", None, {}, "from Python, with a Plain as `network`"),
        ("module:Plain", Viewing(), {}, "trains a Plain, not a Viewing"),
        ("small_cnn", Plain(), {}, "trains small_cnn, not a module"),
        ("module:Plain", Plain(), {"dropout": 0.1}, "model.dropout: module:Plain has no such"),
        ("module:Plain", Plain(), {"pretrained": True}, "model.pretrained: module:Plain has no"),
        ("small_cnn", None, {"pretrained": True}, "model.pretrained: small_cnn has no"),
        ("keras:vgg", None, {}, "unknown name 'keras'; known: timm, torchvision"),
    ],
)
def test_networks_that_cannot_be_made(name, module, options, message):
    with pytest.raises(InputError, match=message):
        make_network(name, SHAPE, 5, module=module, **options)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_missing_library_is_one_line_with_the_command(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)  # import raises ImportError
    with pytest.raises(InputError, match=r"pip install 'fastssl\[backbones\]'") as raised:
        make_network(f"{library}:resnet18", SHAPE, 5)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_librarys_network_is_found_by_name(monkeypatch, pretrained):
    """Both libraries' calls, as their documentation has them, on stand-ins."""
    asked = []

    def get_model(name, *, weights):
        asked.append((name, weights))
        return Plain()

    def create_model(name, *, pretrained, in_chans):
        asked.append((name, pretrained, in_chans))
        return Plain()

    models = SimpleNamespace(list_models=lambda module: ["plain"], get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    timm = SimpleNamespace(list_models=lambda: ["plain"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", timm)
    for library in ("torchvision", "timm"):
        network = make_network(f"{library}:plain", SHAPE, 4, pretrained=pretrained)
        assert network(torch.randn(2, *SHAPE))[0].shape == (2, 4)
        with pytest.raises(InputError, match=f"{library}: unknown name 'plan'; did you mean"):
            make_network(f"{library}:plan", SHAPE, 4)
    assert asked == [("plain", "DEFAULT" if pretrained else None), ("plain", pretrained, 3)]


def importable(library):
    try:
        __import__(library)
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    "name", ["torchvision:mobilenet_v3_small", "timm:mobilenetv3_small_050", "torchvision:vit_b_16"]
)
def test_their_own_networks(name):
    library, _, network = name.partition(":")
    if not importable(library):
        pytest.skip(f"{library} does not import here")
    shape = (3, 224, 224) if "vit" in network else (3, 64, 64)
    backbone = make_network(name, shape, 7).eval()
    logits, features = backbone(torch.randn(2, *shape))
    assert logits.shape == (2, 7)
    assert features.shape == (2, backbone.head.in_features)
