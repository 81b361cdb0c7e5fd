"""A multilayer perceptron for points in a few dimensions. N points, K coordinates, C classes."""

from torch import nn

from fastssl.models.backbone import Backbone

WIDTH, LAYERS = 300, 3  # CCN section 4.2


class MLP(Backbone):
    """Three hidden layers of 300 ReLUs; the features are those of the last.

    Takes points [N,K], or images of one pixel [N,K,1,1].
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width in [in_channels] + [WIDTH] * (LAYERS - 1):
            layers += [nn.Linear(width, WIDTH), nn.ReLU(inplace=True)]
        super().__init__(nn.Sequential(*layers), WIDTH, num_classes)
