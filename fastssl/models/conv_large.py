"""The 13-layer network of semi-supervised learning on small images ("conv-large").

K channels, H x W pixels, C classes. Laine and Aila, "Temporal Ensembling for Semi-Supervised
Learning", table 5; the details that published implementations share, without input noise.
"""

from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrizations

from fastssl.errors import InputError
from fastssl.models.backbone import Backbone
from fastssl.models.convolution import ConvolutionLayer

FEATURES = 128
SMALLEST = 12  # pixels a side: two halvings leave 3, which the unpadded convolution needs


class ConvLarge(Backbone):
    """Nine convolutions in three blocks, global average pooling, one linear class head.

    Takes any K and H, W >= 12; 128 features, the globally pooled output of the last convolution.
    CCN uses it as it stands; MUSCLE, Mean Teacher and label propagation with `weight_norm`.

    Args:
        in_channels: K.
        num_classes: C.
        dropout: probability, after each of the two max poolings.
        weight_norm: normalise the weights of every convolution and of the head.
        unit_features: scale features to L2 norm 1, before the head and as they are returned.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.5,
        weight_norm: bool = False,
        unit_features: bool = False,
    ) -> None:
        if not 0 <= dropout < 1:
            raise InputError(f"dropout: {dropout}; expected 0 or more, below 1")

        def layer(*shape: int, halve_from: int | None = None) -> ConvolutionLayer:
            return ConvolutionLayer(*shape, weight_norm=weight_norm, halve_from=halve_from)

        extractor = nn.Sequential(
            layer(in_channels, 128),
            layer(128, 128),
            layer(128, 128, halve_from=2),
            nn.Dropout(dropout),
            layer(128, 256),
            layer(256, 256),
            layer(256, 256, halve_from=2),
            nn.Dropout(dropout),
            layer(256, 512, 3, 0),
            layer(512, 256, 1, 0),
            layer(256, FEATURES, 1, 0),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        if unit_features:
            extractor.append(_UnitLength())
        super().__init__(extractor, FEATURES, num_classes)
        if weight_norm:
            parametrizations.weight_norm(self.head)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N,C] and features [N,128] of images [N,K,H,W].

        Raises:
            InputError: the images are too small.
        """
        H, W = images.shape[-2:]
        if min(H, W) < SMALLEST:
            raise InputError(
                f"conv_large: images of {H}x{W} pixels; expected {SMALLEST}x{SMALLEST} or more"
            )
        return super().forward(images)


class _UnitLength(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return normalize(features, dim=1)
