"""ResNet-18, MUSCLE's network for Mini-ImageNet. K channels, H x W pixels, C classes.

He et al., "Deep residual learning for image recognition", table 1; projection shortcuts (option B).
"""

from collections import OrderedDict

from torch import Tensor, nn

from fastssl.errors import unknown_name
from fastssl.models.backbone import Backbone

WIDTHS = (64, 128, 256, 512)
STEMS = ("cifar", "imagenet")


class ResNet18(Backbone):
    """Eight residual blocks of two 3x3 convolutions, global average pooling, one linear head.

    Takes any K, H and W; 512 features. It has no dropout, so MUSCLE uses it as it is.

    Args:
        in_channels: K.
        num_classes: C.
        stem: "imagenet", a 7x7 convolution and a max pooling that leave a quarter of each side, or
            "cifar", a 3x3 convolution that leaves all of it, for images of about 32 pixels.

    Raises:
        InputError: there is no such stem.
    """

    def __init__(self, in_channels: int, num_classes: int, *, stem: str = "imagenet") -> None:
        if stem not in STEMS:
            raise unknown_name("model.stem", stem, STEMS)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if stem == "imagenet":
            layers["stem"] = _convolution(in_channels, WIDTHS[0], kernel_size=7, stride=2)
            layers["relu"] = nn.ReLU(inplace=True)
            layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            layers["stem"] = _convolution(in_channels, WIDTHS[0])
            layers["relu"] = nn.ReLU(inplace=True)
        width = WIDTHS[0]
        for number, wider in enumerate(WIDTHS, start=1):
            stride = 1 if number == 1 else 2
            layers[f"stage{number}"] = nn.Sequential(
                ResidualBlock(width, wider, stride), ResidualBlock(wider, wider)
            )
            width = wider
        layers["mean"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        super().__init__(nn.Sequential(layers), width, num_classes)


class ResidualBlock(nn.Module):
    """Two convolutions and the block's input, projected where its shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _convolution(in_channels, out_channels, stride=stride)
        self.second = _convolution(out_channels, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = _convolution(in_channels, out_channels, kernel_size=1, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N,K,H,W] to [N,K',H/stride,W/stride]."""
        return self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))


def _convolution(
    in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1
) -> nn.Sequential:
    """Convolution without bias and batch norm; He's initialisation for the ReLU behind them."""
    layer = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels))
