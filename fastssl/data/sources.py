"""Where images come from: whole data sets in memory, as uint8, with their fixed test part.

N images, K channels, C classes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fastssl.data.philox import Purpose
from fastssl.data.splits import stratified
from fastssl.errors import unknown_name

DIGITS_TEST_IMAGES = 360


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A labeled data set with a fixed test part; `mean` and `std` are of the training pixels."""

    name: str
    images: Tensor  # uint8 [N,K,H,W], the training part
    labels: Tensor  # int64 [N]
    test_images: Tensor  # uint8 [M,K,H,W]
    test_labels: Tensor  # int64 [M]
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @cached_property
    def mean(self) -> Tensor:
        """Mean of each channel over the training images, pixels in [0, 1], float32 [K]."""
        return (self.images.double() / 255).mean((0, 2, 3)).float()

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of each channel, as `mean`, float32 [K]."""
        return (self.images.double() / 255).std((0, 2, 3), correction=0).float()

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over every byte of images and labels: what a split or checkpoint was made for."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels, self.test_images, self.test_labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def load_source(name: str) -> ImageSource:
    """The data set called `name`.

    Raises:
        InputError: no data set has that name; the message lists the known ones.
    """
    if name not in SOURCES:
        raise unknown_name("data", name, SOURCES)
    return SOURCES[name]()


def load_digits() -> ImageSource:
    """Scikit-learn's 1,797 handwritten digits, 8x8, white on black; nothing is downloaded.

    The test part is 360 images, 36 a class, the same for every seed. Pixels 0..16 become 0..255.
    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits as load_sklearn_digits

    digits = load_sklearn_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    test = stratified(labels, DIGITS_TEST_IMAGES, seed=0, purpose=Purpose.TEST_SPLIT)
    train = torch.ones(len(labels), dtype=torch.bool)
    train[test] = False
    return ImageSource(
        name="digits",
        images=images[train],
        labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple(str(name) for name in digits.target_names),
    )


SOURCES: dict[str, Callable[[], ImageSource]] = {"digits": load_digits}
