"""The two streams of a training run: every step's images as views, on the device.

V views, B rows of which the first L are labeled, K channels, S x S pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastssl.data.normalise import normalise
from fastssl.data.philox import Purpose
from fastssl.data.residence import Gatherer, fits
from fastssl.data.sources import Source
from fastssl.data.splits import LabelSplit
from fastssl.data.streams import ALONE, Shard, Stream
from fastssl.ops import augment
from fastssl.ops.policies import Policy


class TwoStreams:
    """Labeled and unlabeled images of a split, a fixed number of each a step.

    The images stay on the device as uint8, or, where it cannot hold them, in their memory map on
    the host, and only a step's rows travel. A step is a function of (seed, step) alone; of several
    ranks each has its share of the labeled and of the unlabeled rows, as the one process would see
    them.
    """

    def __init__(
        self,
        source: Source,
        split: LabelSplit,
        policies: Sequence[Policy],
        *,
        labeled_rows: int,
        unlabeled_rows: int,
        seed: int,
        device: torch.device,
        shard: Shard = ALONE,
        resident: bool | None = None,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """Put the images where they will be read from.

        Args:
            source: the data set.
            split: which of its images are labeled.
            policies: one a view, V of them; points have no views, each is the point itself.
            labeled_rows: L, labeled images a step over all ranks; 0 where no label is wanted: the
                labeled images are then among the unlabeled ones.
            unlabeled_rows: B - L, unlabeled images a step; none where the split has none.
            seed: of the run.
            device: where the batches are wanted.
            shard: which of several ranks this is.
            resident: whether all images go to the device; None where they fit.
            dtype: of the views, float32 or bfloat16; points stay float32.
            memory_format: of the views as one batch, contiguous_format or channels_last.

        Raises:
            InputError: rows that do not divide by the ranks.
        """
        resident = fits(source.images, device) if resident is None else resident
        home = device if resident else torch.device("cpu")
        labeled, unlabeled = split.labeled, split.unlabeled
        if not labeled_rows:
            labeled, unlabeled = (), tuple(sorted(labeled + unlabeled))
        parts = [
            (part, rows, purpose)
            for part, rows, purpose in (
                (labeled, labeled_rows, Purpose.LABELED_STREAM),
                (unlabeled, unlabeled_rows, Purpose.UNLABELED_STREAM),
            )
            if part and rows
        ]
        self.streams = [
            Stream(torch.tensor(part, device=home), rows, seed, purpose, shard)
            for part, rows, purpose in parts
        ]
        self.policies = tuple(policies)
        self.seed = seed
        self.dtype, self.memory_format = dtype, memory_format
        self.device = device
        self.images = source.images.to(home)
        self.labels = source.labels.to(home)
        self.gatherer = None if resident else Gatherer(self.images, self.positions, device)
        self.mean, self.std = source.mean.to(device), source.std.to(device)
        rows = [torch.arange(rows)[shard.rows(rows)] for _, rows, _ in parts]
        self.labeled_rows = len(rows[0]) if labeled_rows else 0
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        # A row's number in the whole step, so that its views do not depend on the ranks, and an
        # image that comes twice in a step looks different.
        self.row = torch.cat([rows[0], *(own + labeled_rows for own in rows[1:])]).to(device)

    @property
    def steps_per_pass(self) -> int:
        """Steps to a pass over the unlabeled images, or the labeled ones if there are no others."""
        return self.streams[-1].steps_per_pass

    def positions(self, step: int) -> Tensor:
        """Training images of this rank's rows of one step, int64 [B], labeled ones first."""
        return torch.cat([stream.at(step) for stream in self.streams])

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised views [V,B,K,S,S] of one step, labels int64 [L] of rows [0, L).

        And the rows' positions among the training images, int64 [B].
        """
        return self.of(self.rows(step))

    def rows(self, step: int) -> tuple[Tensor, ...]:
        """All that `of` wants to know of a step, on the device: shapes are those of every step.

        The rows' positions [B], and their images and labels if these are on the host.
        """
        self.step.fill_(step)  # a kernel's argument, where a new tensor would be a copy
        position = self.positions(step)
        if self.gatherer is None:
            return (position,)
        labels = self.labels[position[: self.labeled_rows]]
        own = (part.to(self.device, non_blocking=True) for part in (position, labels))
        return (*own, self.gatherer.at(step))

    def of(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What `at` gives, of the rows of the step that `rows` was last asked for.

        Work on the device alone, which a CUDA graph can hold: its step is in a tensor.
        """
        if self.gatherer is None:
            (index,) = rows
            images, labels = self.images[index], self.labels[index[: self.labeled_rows]]
        else:
            index, labels, images = rows
        if images.dtype != torch.uint8:
            points = normalise(images, self.mean, self.std)
            return points.expand(len(self.policies), *points.shape), labels, index
        views = augment(
            images,
            self.policies,
            seed=self.seed,
            step=self.step,
            index=self.row,
            mean=self.mean,
            std=self.std,
            dtype=self.dtype,
            memory_format=self.memory_format,
        )
        return views, labels, index
