"""What a data set is to the rest of the house: images, labels, names, normalisation, fingerprint.

N images, K channels, H x W pixels, C classes.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fastssl.errors import InputError

UNKNOWN = -1  # the label of an image that has none
CHUNK = 2048  # images that statistics look at together


@dataclass(frozen=True)
class ImageFiles:
    """The files a folder's images were read from."""

    names: tuple[str, ...]  # relative to the folder; the training part, then the test part
    digests: tuple[str, ...]  # sha256 of each file
    skipped: tuple[str, ...]  # files left out, each with its reason


@dataclass(frozen=True, eq=False)
class Subclasses:
    """The finer classes that a source's classes are made of."""

    names: tuple[str, ...]
    labels: Tensor  # int64 [N], of the training part
    test_labels: Tensor  # int64 [M]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set: a training part, some or all of it labeled, and a test part if it has its own.

    The images may be a memory map of a file; whoever reads them takes the rows of a step. A source
    of points (two_spirals) holds them in place of images, float32 [N,D], and does not scale them.

    Raises:
        InputError: shapes that do not fit together, or a label out of range.
    """

    name: str
    images: Tensor  # uint8 [N,K,H,W], the training part
    labels: Tensor  # int64 [N], UNKNOWN where there is none
    test_images: Tensor  # uint8 [M,K,H,W]; M = 0 without an official test part
    test_labels: Tensor  # int64 [M]
    class_names: tuple[str, ...]
    subclasses: Subclasses | None = None
    files: ImageFiles | None = None
    # Of images kept in files: what was computed when they were read, which here would cost a pass
    # over all of them.
    known_statistics: tuple[Tensor, Tensor] | None = None
    known_content: str | None = None

    def __post_init__(self) -> None:
        for part, images, labels, least in (
            ("training", self.images, self.labels, UNKNOWN),
            ("test", self.test_images, self.test_labels, 0),
        ):
            if len(images) != len(labels):
                raise InputError(f"{self.name}: {len(images)} {part} images, {len(labels)} labels")
            wrong = ((labels < least) | (labels >= self.num_classes)).nonzero().flatten().tolist()
            if wrong:
                raise InputError(
                    f"{self.name}: {part} image {wrong[0]} has label {int(labels[wrong[0]])}; "
                    f"expected 0 to {self.num_classes - 1}"
                )
        if self.images.shape[1:] != self.test_images.shape[1:]:
            raise InputError(
                f"{self.name}: training images {list(self.images.shape[1:])}, "
                f"test images {list(self.test_images.shape[1:])}"
            )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def shape(self) -> torch.Size:
        """[K,H,W] of every image, [D] of every point."""
        return self.images.shape[1:]

    @property
    def mean(self) -> Tensor:
        """Mean of each channel over the training images, pixels in [0, 1], float32 [K]."""
        return self._statistics[0]

    @property
    def std(self) -> Tensor:
        """Standard deviation of each channel, as `mean`, float32 [K]."""
        return self._statistics[1]

    def cut(self, n: int) -> "Source":
        """The same with n training images alone: the first of each class (or subclass) in turn.

        Raises:
            InputError: there are not so many.
        """
        if not 1 <= n <= len(self.labels):
            raise InputError(f"data.images: {n}; expected 1 to {len(self.labels)}")
        fine = self.subclasses
        groups = self.labels if fine is None else fine.labels
        turns = torch.empty_like(groups)
        for group in groups.unique():
            members = groups == group
            turns[members] = torch.arange(int(members.sum()))
        chosen = turns.argsort(stable=True)[:n].sort().values
        return replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            subclasses=fine and replace(fine, labels=fine.labels[chosen]),
            files=None,
        )

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        if self.known_statistics is not None:
            return self.known_statistics
        if self.images.dtype != torch.uint8:
            return torch.zeros(self.shape[0]), torch.ones(self.shape[0])
        return mean_and_std(moments(self.images), self.shape)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over every byte of images and labels: what a split or checkpoint was made for.

        Of images read from files, over the files in place of their pixels.
        """
        digest = hashlib.sha256()
        tensors = (self.images, self.labels, self.test_images, self.test_labels)
        if self.known_content is not None:
            digest.update(self.known_content.encode())
            tensors = (self.labels, self.test_labels)
        for tensor in tensors:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def moments(images: Tensor) -> np.ndarray:
    """Sum and sum of squares of the pixels of every image and channel, int64 [N,2,K], exact."""
    N, K = images.shape[:2]
    sums = np.empty((N, 2, K), dtype=np.int64)
    for first in range(0, N, CHUNK):
        rows = slice(first, first + CHUNK)
        pixels = images[rows].numpy().reshape(-1, K, int(np.prod(images.shape[2:])))
        sums[rows, 0] = pixels.sum(2, dtype=np.int64)
        sums[rows, 1] = np.square(pixels, dtype=np.uint16).sum(2, dtype=np.int64)
    return sums


def mean_and_std(sums: np.ndarray, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, pixels in [0, 1], float32 [K] each.

    In Python's integers up to the last division, so that no order of summation shows. A channel
    that is the same everywhere has deviation 1, so that normalising it gives 0.

    Args:
        sums: int64 [N,2,K], of `moments`.
        shape: [K,H,W].
    """
    K, H, W = shape
    n = max(len(sums), 1) * H * W
    mean, std = torch.empty(K), torch.empty(K)
    for k in range(K):
        first, second = (int(sums[:, i, k].sum()) for i in (0, 1))
        mean[k] = first / (255 * n)
        std[k] = (n * second - first**2) ** 0.5 / (255 * n) or 1.0
    return mean, std
