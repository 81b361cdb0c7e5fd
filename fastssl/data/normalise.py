"""Images as networks see them. N images, K channels, H x W pixels."""

import torch
from torch import Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images uint8 [N,K,H,W] to float32 with zero mean and unit variance, given mean, std [K].

    Points float32 [N,K] likewise; their values are not pixels and are not divided by 255.
    """
    channels = [-1] + [1] * (images.dim() - 2)
    values = images.to(torch.float32)
    values = values / 255 if images.dtype == torch.uint8 else values
    return (values - mean.view(channels)) / std.view(channels)
