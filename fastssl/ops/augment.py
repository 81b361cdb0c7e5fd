"""All views of a step from one kernel. V views of N images of K channels, S x S pixels."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fastssl.ops.augment_reference import augment_reference
from fastssl.ops.plans import PLAN_FIELDS
from fastssl.ops.policies import Policy, plan
from fastssl.ops.registration import register_no_gradient

__all__ = ["augment", "augment_reference"]

LEAST_SIZE, MOST_SIZE = 2, 160  # kLeastSize, kMostSize of csrc/kernels/augment.h
MOST_VIEWS = 16
DTYPES = (torch.float32, torch.bfloat16, torch.uint8)


def augment(
    images: Tensor,
    policies: Sequence[Policy],
    *,
    seed: int,
    step: Tensor,
    index: Tensor,
    mean: Tensor,
    std: Tensor,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """One view of every image for every policy, each with random choices of its own.

    The choices are a function of (seed, step, index, view) alone: the same on CPU and CUDA, under
    any batching and any number of processes. Since the step is a tensor, a captured CUDA graph
    draws anew at each replay. Pillow images go through the same steps to the same pixels: exactly
    through the geometric ones, within one gray level through the others.

    Args:
        images: uint8 [N, K, S, S], K 1 or 3, S from 2 to 160.
        policies: one a view, V of them, 1 to 16; from `fastssl.ops.policies`. torch.compile,
            which takes them from torch 2.13 on, wants them made outside of the compiled function.
        seed: 64 bits.
        step: int64 [], on the images' device.
        index: int64 [N], what tells the draws of one step apart: the images' numbers, or their rows
            if an image may come twice. The low 32 bits of step and index count.
        mean: float32 [K], of pixels in [0, 1].
        std: float32 [K], as mean.
        dtype: of the views: float32, bfloat16, or uint8 for gray levels that are not normalised.
        memory_format: of `views.flatten(0, 1)`, which copies nothing; contiguous_format or
            channels_last.

    Returns:
        [V, N, K, S, S]. Without a gradient: to autograd it is a constant.

    Raises:
        ValueError: shapes, devices or policies that do not fit.
        TypeError: a dtype that is not supported.
    """
    _check(images, policies, step, index, mean, std)
    if dtype not in DTYPES:
        raise TypeError(f"augment: dtype is {dtype}; expected float32, bfloat16 or uint8")
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(
            f"augment: memory_format is {memory_format}; "
            "expected contiguous_format or channels_last"
        )
    S = len(range(images.shape[-1]))  # a constant to torch.compile, unlike the symbol itself
    return torch.ops.fastssl.augment(
        images,
        _integers(S, images.device, *policies),
        _factors(S, images.device, *policies),
        _plans(S, images.device, *policies),
        (seed & (1 << 64) - 1) - ((seed & 1 << 63) << 1),  # as a signed integer
        step,
        index,
        mean,
        std,
        dtype,
        memory_format == torch.channels_last,
    )


@lru_cache(maxsize=64)
def _plan(S: int, device: torch.device, policies: tuple) -> tuple[list[int], Tensor, Tensor]:
    plans, integers, factors = plan(policies, S)
    return (
        plans,
        torch.tensor(integers, dtype=torch.int32, device=device),
        torch.tensor(factors, dtype=torch.float32, device=device),
    )


# Constants to torch.compile, which takes policies one by one, and would look inside lru_cache.


@torch.compiler.assume_constant_result
def _plans(S: int, device: torch.device, *policies: Policy) -> list[int]:
    return _plan(S, device, policies)[0]


@torch.compiler.assume_constant_result
def _integers(S: int, device: torch.device, *policies: Policy) -> Tensor:
    return _plan(S, device, policies)[1]


@torch.compiler.assume_constant_result
def _factors(S: int, device: torch.device, *policies: Policy) -> Tensor:
    return _plan(S, device, policies)[2]


def _check(
    images: Tensor,
    policies: Sequence[Policy],
    step: Tensor,
    index: Tensor,
    mean: Tensor,
    std: Tensor,
) -> None:
    shape = list(images.shape)
    if images.dtype != torch.uint8:
        raise TypeError(f"augment: images is {images.dtype}; expected uint8")
    if images.dim() != 4 or shape[0] == 0 or shape[1] not in (1, 3) or shape[2] != shape[3]:
        raise ValueError(f"augment: images is {shape}; expected [N, 1 or 3, S, S], not empty")
    if not LEAST_SIZE <= shape[2] <= MOST_SIZE:
        raise ValueError(f"augment: images is {shape}; expected sides of 2 to 160 pixels")
    if not 1 <= len(policies) <= MOST_VIEWS:
        raise ValueError(f"augment: {len(policies)} policies; expected 1 to {MOST_VIEWS}")
    expected = {
        "step": (step, torch.int64, []),
        "index": (index, torch.int64, shape[:1]),
        "mean": (mean, torch.float32, shape[1:2]),
        "std": (std, torch.float32, shape[1:2]),
    }
    for name, (tensor, dtype, size) in expected.items():
        if tensor.dtype != dtype:
            raise TypeError(f"augment: {name} is {tensor.dtype}; expected {dtype}")
        if list(tensor.shape) != size:
            raise ValueError(f"augment: {name} is {list(tensor.shape)}; expected {size}")
        if tensor.device != images.device:
            raise ValueError(f"augment: images is on {images.device} but {name} on {tensor.device}")


@torch.library.register_fake("fastssl::augment")
def _(images, integers, factors, plans, seed, step, index, mean, std, dtype, channels_last):
    N, K, S, _ = images.shape
    V, P = len(plans) // PLAN_FIELDS, S * S
    inner = (1, S * K, K) if channels_last else (P, S, 1)
    return images.new_empty_strided((V, N, K, S, S), (N * K * P, K * P, *inner), dtype=dtype)


register_no_gradient("augment")
