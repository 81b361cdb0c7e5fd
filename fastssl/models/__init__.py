"""Networks by name. A leaf of the package: a network knows nothing of data or objectives."""

from fastssl.errors import unknown_name
from fastssl.models.backbone import Backbone
from fastssl.models.correction import CorrectionNetwork
from fastssl.models.small_cnn import SmallCNN

__all__ = ["MODELS", "Backbone", "CorrectionNetwork", "build_model"]

MODELS: dict[str, type[Backbone]] = {"small_cnn": SmallCNN}


def build_model(name: str, in_channels: int, num_classes: int) -> Backbone:
    """A freshly initialised network; torch's default generator decides its weights.

    Raises:
        InputError: no network has that name.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name](in_channels, num_classes)
