"""Networks by name. A leaf of the package: a network knows nothing of data or objectives."""

import copy
import inspect
from typing import Any

from torch import nn

from fastssl.errors import InputError, unknown_name
from fastssl.models.backbone import Backbone
from fastssl.models.conv_large import ConvLarge
from fastssl.models.correction import CorrectionNetwork
from fastssl.models.mlp import MLP
from fastssl.models.resnet18 import ResNet18
from fastssl.models.small_cnn import SmallCNN
from fastssl.models.torch_backbone import TorchBackbone, library_module

__all__ = [
    "MODELS",
    "OWN_MODULE",
    "Backbone",
    "CorrectionNetwork",
    "TorchBackbone",
    "build_model",
    "make_network",
]

MODELS: dict[str, type[Backbone]] = {
    "conv_large": ConvLarge,
    "mlp": MLP,
    "resnet18": ResNet18,
    "small_cnn": SmallCNN,
}
OWN_MODULE = "module:"  # and its class's name: a network that its user gave, see `make_network`


def build_model(name: str, in_channels: int, num_classes: int, **options: Any) -> Backbone:
    """A freshly initialised network; torch's default generator decides its weights.

    Args:
        name: one of `MODELS`.
        in_channels: channels of its images.
        num_classes: logits an image.
        options: the keyword arguments of that network.

    Raises:
        InputError: no network has that name, or it does not have that option.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    for option in options.keys() - inspect.signature(MODELS[name]).parameters.keys():
        raise InputError(f"model.{option}: {name} has no such option")
    return MODELS[name](in_channels, num_classes, **options)


def make_network(
    name: str,
    image_shape: tuple[int, ...],
    num_classes: int,
    *,
    module: nn.Module | None = None,
    **options: Any,
) -> Backbone:
    """The network of a run: of the package, of a library, or its user's own.

    Args:
        name: one of `MODELS`, "torchvision:NAME", "timm:NAME", or `OWN_MODULE` and a class's name.
        image_shape: [K,H,W] of its images, [K] of points.
        num_classes: C, logits an image.
        module: of a user's own, of that class; it is copied. A Backbone is used as it is, any other
            module as a `TorchBackbone`.
        options: the keyword arguments of the network; of a library's, "pretrained" alone.

    Raises:
        InputError: as `build_model`, `TorchBackbone` or `library_module`; a module is missing, or
            is not of the class that the name has; or a Backbone has other classes.
    """
    if name.startswith(OWN_MODULE):
        kind = name.removeprefix(OWN_MODULE)
        if module is None:
            raise InputError(
                f"network: the run trains a module of its user's own, whose code is not in its "
                f"folder; open it from Python, with a {kind} as `network`"
            )
        if type(module).__name__ != kind:
            raise InputError(f"network: the run trains a {kind}, not a {type(module).__name__}")
    elif module is not None:
        raise InputError(f"network: the run trains {name}, not a module of its user's own")
    if ":" not in name:
        return build_model(name, image_shape[0], num_classes, **options)
    for option in options.keys() - (set() if module else {"pretrained"}):
        raise InputError(f"model.{option}: {name} has no such option")
    if module is None:
        module = library_module(name, image_shape[0], **options)
    if not isinstance(module, Backbone):
        return TorchBackbone(module, num_classes, image_shape)
    if module.head.out_features != num_classes:
        raise InputError(
            f"network: {type(module).__name__} has {module.head.out_features} classes, the data "
            f"{num_classes}"
        )
    return copy.deepcopy(module)
