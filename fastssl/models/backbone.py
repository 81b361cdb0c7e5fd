"""What every network of the package looks like from outside.

N images, K channels, H x W pixels, D features, C classes.
"""

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """A feature extractor and a linear head: images [N,K,H,W] -> (logits [N,C], features [N,D])."""

    memory_format = torch.channels_last  # of the weights and images it trains with

    def __init__(self, extractor: nn.Module, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = nn.Linear(feature_dim, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N,C] and the features [N,D] they were read from."""
        features = self.extractor(images)
        return self.head(features), features
