"""Weak and hard views of images: random affine transforms and noise, drawn for every image alone.

V views, N images, K channels, H x W pixels. The random numbers of a view are a function of
(seed, step, row, view), so an image's views do not depend on what else is in its batch, on the
device, or on the number of processes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.data.philox import philox, uniform
from fastssl.errors import InputError

AFFINE_BLOCKS = 2  # five parameters from two Philox blocks of four words; noise starts after them


@dataclass(frozen=True)
class ViewPolicy:
    """How far one view may go; every parameter is uniform in the symmetric range it names.

    Attributes:
        rotate: degrees.
        scale: 0.2 is a zoom between 0.8 and 1.2.
        shear: horizontal, as the tangent of its angle.
        translate: pixels, each axis.
        noise: standard deviation of Gaussian noise, pixels in [0, 1].
    """

    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"views: {name} is {value}; expected a finite number, 0 or more")
        if self.scale >= 1:
            raise InputError(f"views: scale is {self.scale}; expected less than 1")


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images uint8 [N,K,H,W] to float32 with zero mean and unit variance, given mean, std [K].

    Points float32 [N,K] likewise; their values are not pixels and are not divided by 255.
    """
    channels = [-1] + [1] * (images.dim() - 2)
    values = images.to(torch.float32)
    values = values / 255 if images.dtype == torch.uint8 else values
    return (values - mean.view(channels)) / std.view(channels)


def augment(
    images: Tensor,
    policies: Sequence[ViewPolicy],
    *,
    seed: int,
    step: int,
    index: Tensor,
    mean: Tensor,
    std: Tensor,
) -> Tensor:
    """One view of every image for every policy.

    Args:
        images: uint8 [N,K,H,W].
        policies: one a view, V of them.
        seed: of the run.
        step: training step; every step draws anew.
        index: int64 [N], what tells the draws of one step apart. Rows with equal index get the same
            transform, so the caller passes the row in the step's whole batch, not the image:
            20 labels fill 64 rows by repetition, and each repetition should look different.
        mean: float32 [K], of pixels in [0, 1].
        std: float32 [K], as `mean`.

    Returns:
        float32 [V,N,K,H,W], normalised. No gradient.
    """
    V, (N, K, H, W) = len(policies), images.shape
    blocks = torch.arange(AFFINE_BLOCKS + -(-K * H * W // 4), device=images.device)
    views = torch.arange(V, device=images.device)
    step_word = torch.full_like(index[:1], step)
    words = philox((index.view(1, N, 1), step_word, views.view(V, 1, 1), blocks), seed)
    draws = uniform(torch.stack(words, -1).flatten(2))  # [V,N,4*blocks]
    affine, noise = draws.split([4 * AFFINE_BLOCKS, draws.shape[2] - 4 * AFFINE_BLOCKS], dim=2)

    grid = _sampling_grid(affine * 2 - 1, _per_view(policies, images.device), H, W)
    pixels = images.to(torch.float32).div(255).expand(V, N, K, H, W).reshape(V * N, K, H, W)
    sampled = F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)
    deviation = torch.tensor([p.noise for p in policies], device=images.device).view(V, 1, 1)
    noisy = sampled.view(V, N, -1) + deviation * _gaussian(noise)[..., : K * H * W]
    return (noisy.view(V, N, K, H, W) - mean.view(K, 1, 1)) / std.view(K, 1, 1)


def _per_view(policies: Sequence[ViewPolicy], device: torch.device) -> Tensor:
    """The ranges of the five affine parameters, in radians and pixels, float32 [V,1,5]."""
    ranges = [
        [math.radians(p.rotate), p.scale, p.shear, p.translate, p.translate] for p in policies
    ]
    return torch.tensor(ranges, device=device).unsqueeze(1)


def _sampling_grid(draws: Tensor, ranges: Tensor, H: int, W: int) -> Tensor:
    """Where each output pixel is read, [V*N,H,W,2] in grid_sample's coordinates.

    Written out in elementwise arithmetic: a batched matrix product may round differently for
    another batch size, and a view must not.
    """
    angle, zoom, shear, shift_x, shift_y = (
        (draws[..., :5] * ranges).unsqueeze(-1).unsqueeze(-1).unbind(2)
    )  # each [V,N,1,1]
    x = torch.arange(W, device=draws.device, dtype=draws.dtype).view(1, W) - (W - 1) / 2
    y = torch.arange(H, device=draws.device, dtype=draws.dtype).view(H, 1) - (H - 1) / 2
    cos, sin, shrink = angle.cos(), angle.sin(), 1 / (1 + zoom)
    sheared = x + shear * y
    source_x = shrink * (cos * sheared - sin * y) + shift_x
    source_y = shrink * (sin * sheared + cos * y) + shift_y
    return torch.stack([source_x * (2 / W), source_y * (2 / H)], dim=-1).flatten(0, 1)


def _gaussian(draws: Tensor) -> Tensor:
    """As many standard normal numbers as uniform ones in [0, 1), by Box and Muller, [..., even]."""
    radius, turn = draws.chunk(2, dim=-1)
    length = (-2 * torch.log1p(-radius)).sqrt()
    return torch.cat([length * (turn * math.tau).cos(), length * (turn * math.tau).sin()], dim=-1)
