"""Samples scaled to one norm: VAT's perturbation from the direction of its gradient. N samples."""

import torch
from torch import Tensor

from fastssl.ops.registration import check_floats, register_no_gradient


def unit_perturbation(direction: Tensor, radius: float) -> Tensor:
    """Each sample scaled to L2 norm `radius`, however small or large its own norm is.

    Nothing underflows or overflows on the way: a sample of float32's smallest subnormals and one of
    its largest numbers both come out at `radius`. A sample of zeros stays zero. One that holds a
    NaN or an infinity has no direction and becomes NaN throughout.

    Args:
        direction: [N, ...]; float32, float64, float16 or bfloat16. The norm is over all but the
            first dimension. Images in channels_last order give a perturbation in that order.
        radius: the norm, 0 or more.

    Returns:
        [N, ...], of the direction's dtype. Without a gradient: to autograd it is a constant.

    Raises:
        ValueError: a dimension is missing or empty, or the radius is negative or not finite.
        TypeError: the dtype is not supported.
        RuntimeError: under forward-mode AD.
    """
    check_floats("unit_perturbation", direction=direction)
    if direction.dim() == 0 or 0 in direction.shape:
        raise ValueError(
            f"unit_perturbation: direction is {list(direction.shape)}; expected [N, ...], not empty"
        )
    if not 0 <= radius < float("inf"):
        raise ValueError(f"unit_perturbation: radius is {radius}; expected 0 or more, finite")
    return torch.ops.fastssl.unit_perturbation(direction, radius)


def unit_perturbation_reference(direction: Tensor, radius: float) -> Tensor:
    """`unit_perturbation` in plain PyTorch: the specification."""
    samples = direction.reshape(len(direction), -1)
    largest = samples.abs().amax(1, keepdim=True)
    scaled = samples / largest.where(largest != 0, 1)  # so that squares do not vanish
    norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return (scaled / norm.where(norm != 0, 1) * radius).reshape(direction.shape)


@torch.library.register_fake("fastssl::unit_perturbation")
def _(direction, radius):
    channels_last = direction.dim() == 4 and direction.is_contiguous(
        memory_format=torch.channels_last
    )
    kept = torch.preserve_format if channels_last else torch.contiguous_format
    return torch.empty_like(direction, memory_format=kept)


register_no_gradient("unit_perturbation")
