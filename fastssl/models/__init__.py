"""Networks by name. A leaf of the package: a network knows nothing of data or objectives."""

import inspect
from typing import Any

from fastssl.errors import InputError, unknown_name
from fastssl.models.backbone import Backbone
from fastssl.models.conv_large import ConvLarge
from fastssl.models.correction import CorrectionNetwork
from fastssl.models.mlp import MLP
from fastssl.models.small_cnn import SmallCNN

__all__ = ["MODELS", "Backbone", "CorrectionNetwork", "build_model"]

MODELS: dict[str, type[Backbone]] = {"conv_large": ConvLarge, "mlp": MLP, "small_cnn": SmallCNN}


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
