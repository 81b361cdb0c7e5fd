"""The convolutional layer that the papers' networks are made of."""

from torch import nn
from torch.nn.utils import parametrizations


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    padding: int = 1,
    *,
    weight_norm: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm, LeakyReLU 0.1.

    Plain, it has no bias, since batch norm has one; with weight norm it keeps its own, as the
    reference implementations of Mean Teacher do.
    """
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=weight_norm)
    return nn.Sequential(
        parametrizations.weight_norm(layer) if weight_norm else layer,
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1, inplace=True),
    )
