"""What the views of a run do to its images: policies by name, and those the papers use.

S x S pixels. MUSCLE's section 4 has the weak views and IIC's and RandAugment's as hard ones; how
far a view goes is scaled to the images' side where the papers do not have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fastssl.data.sources import Source
from fastssl.data.sources.place import IMAGE_SIZE
from fastssl.errors import InputError, unknown_name
from fastssl.ops.policies import (
    POLICIES,
    POLICY_NAMES,
    NoAugment,
    Policy,
    Weak,
    named_policy,
    plan,
)

SIDES = {
    "digits": 8,
    "mnist": 28,
    "svhn": 32,
    "cifar10": 32,
    "cifar100": 32,
    "cifar20": 32,
    "mini_imagenet": 84,
}
FIGURES = ("digits", "mnist", "svhn")  # a mirrored one is another or none


@dataclass(frozen=True)
class ViewsConfig:
    """What the weak and the hard views of an image may do to it."""

    weak: Policy
    hard: Policy


def weak_view(data: str, image_size: int | None = None) -> Weak:
    """The weak view of a data set's images, a name or a folder of images resized to a side."""
    if data == "mini_imagenet":
        return Weak(rotate=10, padding=8, flip=True)
    if data in ("mnist", "svhn", "cifar10", "cifar100", "cifar20"):
        return Weak(translate=4, flip=data not in FIGURES)
    return Weak(translate=_side(data, image_size) // 8, flip=data not in FIGURES)


def policy_for(
    name: str, data: str, image_size: int | None = None, *, key: str = "policy"
) -> Policy:
    """The policy of that name as it suits a data set, a name or a folder resized to a side.

    Raises:
        InputError: there is no policy of that name; `key` is what the name was given for.
    """
    if name not in POLICY_NAMES:
        raise unknown_name(key, name, POLICY_NAMES)
    return named_policy(name, _side(data, image_size), weak_view(data, image_size))


def policy_name(policy: Policy) -> str:
    """What its kind is called, whatever its values are."""
    return next(name for name, kind in POLICIES.items() if type(policy) is kind)


def check_views(source: Source, policies: Sequence[Policy]) -> None:
    """Refuse policies that the images of a data set cannot have.

    Raises:
        InputError: as it says.
    """
    if source.images.dtype != torch.uint8:
        if any(policy != NoAugment() for policy in policies):
            raise InputError(f"views: {source.name} has points, not images; expected policy none")
        return
    try:
        plan(tuple(policies), source.shape[-1])
    except ValueError as error:
        raise InputError(f"views: {error}") from error


def _side(data: str, image_size: int | None) -> int:
    return SIDES.get(data, image_size or IMAGE_SIZE)
