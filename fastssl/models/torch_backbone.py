"""Any torch module that classifies images, as a Backbone.

N images, K channels, H x W pixels, D features, C classes.
Torchvision's and timm's networks come by name, "torchvision:NAME" and "timm:NAME"; both libraries
are optional and imported here alone.
"""

import copy
import importlib
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastssl.errors import InputError, unknown_name
from fastssl.models.backbone import Backbone

EXAMPLES = 2  # images a module is tried on
INSTALL = "pip install 'fastssl[backbones]'"


class TorchBackbone(Backbone):
    """A copy of a module whose last nn.Linear became the head; features are what goes into it.

    The module is tried on two random images: which linear layer runs last is then known, that
    nothing comes after it is checked, and so is that the module can take images as channels_last.
    It works on a copy, so that the module itself stays as it is. A head of C logits keeps its
    weights, another is replaced by a fresh one.

    Args:
        module: images [N,K,H,W] -> logits, of any number of classes.
        num_classes: C.
        image_shape: [K,H,W].

    Raises:
        InputError: the module does not take such images, has no nn.Linear, or its output is not
            that of one, such as after a softmax.
    """

    def __init__(
        self, module: nn.Module, num_classes: int, image_shape: tuple[int, int, int]
    ) -> None:
        kind = type(module).__name__
        try:
            extractor = copy.deepcopy(module)
        except RuntimeError as error:
            raise InputError(f"network: {kind} cannot be copied: {_line(error)}") from error
        first = next(extractor.parameters(), torch.empty(0))
        images = torch.randn(EXAMPLES, *image_shape, device=first.device)
        with _as_evaluated(extractor):
            calls: list[tuple[str, nn.Linear]] = []
            expected = _called_last(extractor, images, calls)
            if not calls:
                raise InputError(
                    f"network: {kind} runs no nn.Linear, whose input would be the features; end it "
                    "with one, or subclass fastssl.models.Backbone"
                )
            name, head = calls[-1]
            if not name:
                raise InputError(f"network: {kind} is a layer; expected features before it")
            extractor.set_submodule(name, nn.Identity())
            features = extractor(images)
            if not isinstance(features, Tensor) or features.shape != (EXAMPLES, head.in_features):
                raise InputError(
                    f"network: the features of {kind}, before {name}, are {_shape(features)}; "
                    f"expected [N,{head.in_features}]"
                )
            if not isinstance(expected, Tensor) or not _same(head(features), expected):
                raise InputError(
                    f"network: {kind} does something after its last nn.Linear, {name}; expected "
                    "logits, without softmax"
                )
            try:
                rows = extractor(images.to(memory_format=torch.channels_last))
                as_it_comes = not _same(rows, features)
            except RuntimeError:  # a view() of what is no longer contiguous
                as_it_comes = True
        super().__init__(extractor, head.in_features, num_classes)
        if head.out_features == num_classes:
            self.head = head
        self.head.to(first)
        self.memory_format = torch.contiguous_format if as_it_comes else torch.channels_last
        self.head_name = name

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N,C] and features [N,D] of images [N,K,H,W]."""
        features = self.extractor(images.contiguous(memory_format=self.memory_format))
        if not isinstance(features, Tensor):
            raise InputError(
                f"network: {type(self.extractor).__name__} gives {type(features).__name__} in "
                "training; expected a tensor, so leave out its auxiliary outputs"
            )
        return self.head(features), features

    def to_module(self) -> nn.Module:
        """A copy of the module as it was given, with this one's weights and its head in place."""
        module = copy.deepcopy(self.extractor)
        module.set_submodule(self.head_name, copy.deepcopy(self.head))
        return module


def _called_last(module: nn.Module, images: Tensor, calls: list[tuple[str, nn.Linear]]) -> Any:
    """What a module makes of images; `calls` gets its linear layers in the order they ran."""
    hooks = [
        layer.register_forward_hook(lambda *_, pair=(name, layer): calls.append(pair))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        return module(images)
    except Exception as error:  # it is the user's own code
        raise InputError(
            f"network: {type(module).__name__} fails on images {list(images.shape[1:])}: "
            f"{type(error).__name__}: {_line(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _as_evaluated(module: nn.Module):
    """Evaluation mode and no gradients, so that trying a module moves nothing in it."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, was_training in training.items():
            part.training = was_training


def _same(a: Any, b: Tensor) -> bool:
    return isinstance(a, Tensor) and a.shape == b.shape and torch.allclose(a, b, 1e-3, 1e-4)


def _shape(x: Any) -> str:
    return str(list(x.shape)) if isinstance(x, Tensor) else type(x).__name__


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def library_module(name: str, in_channels: int, *, pretrained: bool = False) -> nn.Module:
    """The network that torchvision or timm calls NAME, given "torchvision:NAME" or "timm:NAME".

    Torchvision's take K = 3 channels alone. Without `pretrained` torch's default generator decides
    the weights; with it they are the library's default ones, which it downloads.

    Raises:
        InputError: the library is not there, with the command that installs it, or it has no such
            network.
    """
    library, _, network = name.partition(":")
    if library not in LIBRARIES:
        raise unknown_name("model", library, LIBRARIES)
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise InputError(f"model: {name} needs {library}, which is not here: {INSTALL}") from error
    except Exception as error:  # a torchvision built for another torch
        raise InputError(
            f"model: {name} needs {library}, which does not import beside torch "
            f"{torch.__version__} ({_line(error)}): install both from the same index"
        ) from error
    return LIBRARIES[library](module, network, in_channels, pretrained)


def _torchvision(torchvision: Any, name: str, in_channels: int, pretrained: bool) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown_name("model: torchvision", name, known)
    return torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)


def _timm(timm: Any, name: str, in_channels: int, pretrained: bool) -> nn.Module:
    known = timm.list_models()
    if name not in known:
        raise unknown_name("model: timm", name, known)
    return timm.create_model(name, pretrained=pretrained, in_chans=in_channels)


LIBRARIES: dict[str, Callable[[Any, str, int, bool], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
}
