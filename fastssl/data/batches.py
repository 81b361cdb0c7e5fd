"""The two streams of a training run: every step's images as views, on the device.

V views, B rows of which the first L are labeled, K channels, H x W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastssl.data.philox import Purpose
from fastssl.data.sources import ImageSource
from fastssl.data.splits import LabelSplit
from fastssl.data.streams import Stream
from fastssl.data.views import ViewPolicy, augment


class TwoStreams:
    """Labeled and unlabeled images of a split, a fixed number of each a step.

    The images stay on the device as uint8; only a step's positions travel. A step is a function of
    (seed, step) alone.
    """

    def __init__(
        self,
        source: ImageSource,
        split: LabelSplit,
        policies: Sequence[ViewPolicy],
        *,
        labeled_rows: int,
        unlabeled_rows: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """Put the images on the device.

        Args:
            source: the data set.
            split: which of its images are labeled.
            policies: one a view, V of them.
            labeled_rows: L, labeled images a step, at least 1.
            unlabeled_rows: B - L, unlabeled images a step; none where the split has none.
            seed: of the run.
            device: where the batches are wanted.
        """
        self.streams = [Stream(np.array(split.labeled), labeled_rows, seed, Purpose.LABELED_STREAM)]
        if split.unlabeled and unlabeled_rows:
            unlabeled = np.array(split.unlabeled)
            self.streams.append(Stream(unlabeled, unlabeled_rows, seed, Purpose.UNLABELED_STREAM))
        self.policies = tuple(policies)
        self.seed = seed
        self.labeled_rows = labeled_rows
        self.images = source.images.to(device)
        self.labels = source.labels.to(device)
        self.mean, self.std = source.mean.to(device), source.std.to(device)
        self.row = torch.arange(sum(stream.rows for stream in self.streams), device=device)

    @property
    def steps_per_pass(self) -> int:
        """Steps to a pass over the unlabeled images, or the labeled ones if there are no others."""
        return self.streams[-1].steps_per_pass

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Normalised views float32 [V,B,K,H,W] of one step, and labels int64 [L] of rows [0, L)."""
        drawn = np.concatenate([stream.at(step) for stream in self.streams])
        position = torch.from_numpy(drawn).to(self.images.device, non_blocking=True)
        views = augment(
            self.images[position],
            self.policies,
            seed=self.seed,
            step=step,
            index=self.row,
            mean=self.mean,
            std=self.std,
        )
        return views, self.labels[position[: self.labeled_rows]]
