"""A four-layer convolutional network for small images, at most 0.3 million parameters.

K channels, H x W pixels, C classes.
"""

from torch import nn

from fastssl.models.backbone import Backbone
from fastssl.models.convolution import convolution

WIDTHS = (32, 32, 64, 128)


class SmallCNN(Backbone):
    """Conv-large in miniature: 3x3 convolutions, batch norm, LeakyReLU 0.1, global average pooling.

    Takes any K and any H, W >= 8; 128 features. One pooling step sits after each pair of
    convolutions, the last of them the global one, so that 8x8 images still have 4x4 maps.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        a, b, c, d = WIDTHS
        extractor = nn.Sequential(
            convolution(in_channels, a),
            convolution(a, b),
            nn.MaxPool2d(2),
            convolution(b, c),
            convolution(c, d),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        super().__init__(extractor, d, num_classes)
