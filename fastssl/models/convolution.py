"""The convolutional layer that the papers' networks are made of."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import max_pool2d
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized

from fastssl.ops import batch_norm_leaky_relu
from fastssl.ops.registration import accumulator


class ConvolutionLayer(nn.Sequential):
    """Convolution, batch norm, LeakyReLU 0.1, and 2x2 max pooling where it is asked for.

    Plain, it has no bias, since batch norm has one; with weight norm it keeps its own, as the
    reference implementations of Mean Teacher do. What follows the convolution is one op in training
    on the CPU, in channels_last order, and torch's functions elsewhere.

    Args:
        in_channels: of the maps it takes.
        out_channels: of those it gives.
        kernel_size: of the convolution, in pixels.
        padding: of the convolution, in pixels.
        weight_norm: normalise the convolution's weights.
        halve_from: pixels a side from which its maps are pooled; None for never.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        *,
        weight_norm: bool = False,
        halve_from: int | None = None,
    ) -> None:
        layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=weight_norm)
        super().__init__(
            parametrizations.weight_norm(layer) if weight_norm else layer,
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.1, inplace=True),
        )
        self.halve_from = halve_from

    def forward(self, images: Tensor) -> Tensor:
        """Maps [N,K,H,W] of maps."""
        convolution, norm, activation = self
        if is_parametrized(convolution, "weight"):  # by weight norm, which gives planar ones
            kept = convolution.parametrizations.weight.original1
            if kept.is_contiguous(memory_format=torch.channels_last):
                images = images.contiguous(memory_format=torch.channels_last)
        maps = convolution(images)
        halved = self.halve_from is not None and min(maps.shape[-2:]) >= self.halve_from
        if _is_one_op(norm, maps):
            return _train(norm, maps, activation.negative_slope, pool=2 if halved else 1)
        maps = norm(maps)
        # The activation rises, so the largest may be taken before it: there are fewer of them then.
        return activation(max_pool2d(maps, 2) if halved else maps)


def _is_one_op(norm: nn.Module, maps: Tensor) -> bool:
    return (
        norm.training
        and type(norm) is nn.BatchNorm2d  # not one that looks at other processes' rows
        and maps.device.type == "cpu"
        and maps.is_contiguous(memory_format=torch.channels_last)
        and norm.weight.dtype == accumulator(maps.dtype)
        and forward_ad.unpack_dual(maps).tangent is None
    )


def _train(norm: nn.BatchNorm2d, maps: Tensor, negative_slope: float, pool: int) -> Tensor:
    output, mean, variance = batch_norm_leaky_relu(
        maps, norm.weight, norm.bias, eps=norm.eps, negative_slope=negative_slope, pool=pool
    )
    if not norm.track_running_stats:
        return output
    count = maps.numel() // maps.shape[1]
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    return output
