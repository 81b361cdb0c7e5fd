"""A four-layer convolutional network for small images, at most 0.3 million parameters.

K channels, H x W pixels, C classes.
"""

from torch import nn

from fastssl.models.backbone import Backbone

WIDTHS = (32, 32, 64, 128)


class SmallCNN(Backbone):
    """Conv-large in miniature: 3x3 convolutions, batch norm, LeakyReLU 0.1, global average pooling.

    Takes any K and any H, W >= 8; 128 features. One pooling step sits after each pair of
    convolutions, the last of them the global one, so that 8x8 images still have 4x4 maps.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        a, b, c, d = WIDTHS
        extractor = nn.Sequential(
            _convolution(in_channels, a),
            _convolution(a, b),
            nn.MaxPool2d(2),
            _convolution(b, c),
            _convolution(c, d),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        super().__init__(extractor, d, num_classes)


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution without bias (batch norm has one), batch norm, LeakyReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1, inplace=True),
    )
