"""A network's predictions of each image, averaged over its training (CCN eq. 5, 6).

N training images, B rows of a batch, C classes.
"""

import torch
from torch import Tensor, nn


class TemporalEnsemble(nn.Module):
    """tau <- alpha tau + (1 - alpha) h for each image that a step has seen (CCN eq. 6).

    The state is buffers: `mean` [N,C], the running tau from zeros, and `updates` [N], how often an
    image was seen. A target is tau / (1 - alpha^updates), which takes the zeros' share out again
    (Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", section 3.2).
    """

    def __init__(self, num_images: int, num_classes: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("mean", torch.zeros(num_images, num_classes))
        self.register_buffer("updates", torch.zeros(num_images, dtype=torch.int64))

    def distance(self, probabilities: Tensor, index: Tensor) -> Tensor:
        """Mean over B and C of (h - target)^2; an image that was never seen counts 0 (CCN eq. 5).

        Args:
            probabilities: h [B,C], differentiable.
            index: int64 [B], the rows' positions among the N images.

        Returns:
            A scalar. The targets receive no gradient.
        """
        updates = self.updates[index].unsqueeze(1)
        correction = 1 - self.alpha ** updates.to(self.mean.dtype)
        seen = updates > 0
        target = self.mean[index] / correction.where(seen, 1)
        return torch.where(seen, probabilities - target, 0).square().mean()

    @torch.no_grad()
    def update(self, probabilities: Tensor, index: Tensor) -> None:
        """Take in the predictions [B,C] of the images at index int64 [B].

        An image that stands in several rows is updated once a row, each time by the mean of its
        predictions: the order of rows does not matter, on any device.
        """
        # A sum in bfloat16, as autocast would have it, stands still after 256 images.
        with torch.autocast(self.mean.device.type, enabled=False):
            self._update(probabilities, index)

    def _update(self, probabilities: Tensor, index: Tensor) -> None:
        same = (index.unsqueeze(0) == index.unsqueeze(1)).to(self.mean.dtype)  # [B,B]
        rows = same.sum(1, keepdim=True)
        first = same.argmax(1)  # so that rows of one image write exactly the same
        mean = (same @ probabilities.to(self.mean.dtype) / rows)[first]
        kept = self.alpha**rows
        self.mean[index] = kept * self.mean[index] + (1 - kept) * mean
        self.updates[index] += rows.squeeze(1).long()
