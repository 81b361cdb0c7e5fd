"""Where training stands, and the images an algorithm may look at between two passes.

M images, K channels, H x W pixels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TrainingImages:
    """The images of both streams as they are, without augmentation, on the device."""

    index: Tensor  # int64 [M], their positions among the training images, as `Batch.index` has them
    labels: Tensor  # int64 [M], -1 where none was given
    batches: Callable[[], Iterable[Tensor]]  # of normalised images [n,K,H,W], in index's order


@dataclass(frozen=True)
class State:
    """Where training stands. A stage begins like a run: its passes are counted from 0."""

    step: int  # steps done
    epoch: int  # passes done over the unlabeled images (the labeled ones if there are no others)
    stage: int = 0  # the first is 0; only label propagation has another
    images: TrainingImages | None = None
