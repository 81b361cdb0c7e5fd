"""A four-layer convolutional network for small images, at most 0.3 million parameters.

K channels, H x W pixels, C classes.
"""

from torch import nn

from fastssl.models.backbone import Backbone
from fastssl.models.convolution import ConvolutionLayer

WIDTHS = (32, 32, 64, 128)


class SmallCNN(Backbone):
    """Conv-large in miniature: 3x3 convolutions, batch norm, LeakyReLU 0.1, global average pooling.

    Takes any K and any H, W >= 8; 128 features. Maps are halved after the second convolution, and
    where they are large after the first and the third, so that the last ones have 3 to 4 pixels a
    side for images of 8 and of 12 to 35.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        a, b, c, d = WIDTHS
        extractor = nn.Sequential(
            ConvolutionLayer(in_channels, a, halve_from=16),
            ConvolutionLayer(a, b, halve_from=2),
            ConvolutionLayer(b, c, halve_from=6),
            ConvolutionLayer(c, d),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        super().__init__(extractor, d, num_classes)
